"""Notices that files have changed, once they have come to rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_State = tuple[tuple[int, int, int] | None, ...]


class FileWatch:
    """Looks at files now and then.

    Several files that belong together are not replaced in one moment. So a change is acted on at the second look that finds the
    files as the first did.

    Args:
        paths: the files.
        clock: the reactor.
        interval: seconds between two looks.
        changed: is called when the files have changed and rest; returns whether it took them, else it is called at each look.
    """

    def __init__(self, paths: Iterable[str], *, clock: Any, interval: float, changed: Callable[[], bool]) -> None:
        self._paths = tuple(paths)
        self._interval = interval
        self._changed = changed
        self._taken = self._seen = self._look()
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to look."""
        if not self._loop.running:
            self._loop.start(self._interval, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def _check(self) -> None:
        state = self._look()
        rests = state == self._seen
        self._seen = state
        if rests and state != self._taken and self._changed():
            self._taken = state

    def _look(self) -> _State:
        return tuple(_state_of(path) for path in self._paths)


def _state_of(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - follows links, as whoever opens the file does
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
