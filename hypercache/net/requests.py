"""What was asked over a link and not answered yet: answers have no number, they come in the order of the requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger

if TYPE_CHECKING:
    from hypercache.wire import Message

Sink = Callable[["Message | None"], None]

_log = Logger()


class _Run(msgspec.Struct):
    """So many requests in a row whose answers, all of one type, go to one place."""

    answer_type: int
    sink: Sink
    count: int


class Requests:
    """The requests of one link that are not answered."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: deque[_Run] = deque()

    def expect(self, answer_type: int, sink: Sink, count: int) -> None:
        """Have the next ``count`` answers that are not spoken for go to ``sink``."""
        if count > 0:
            self._runs.append(_Run(answer_type, sink, count))

    def awaits(self, answer_type: int) -> bool:
        """Say whether the oldest request is answered by that type."""
        return bool(self._runs) and self._runs[0].answer_type == answer_type

    def answer(self, message: Message, answer_type: int) -> bool:
        """Take an answer, or an error in the place of one.

        Args:
            message: the answer.
            answer_type: its type; of an error, any: 0.

        Returns:
            Whether the oldest request is answered by that.
        """
        runs = self._runs
        if not runs:
            return False
        run = runs[0]
        if answer_type and run.answer_type != answer_type:
            return False
        run.count -= 1
        if not run.count:
            runs.popleft()
        try:
            run.sink(message)
        except Exception:  # noqa: BLE001 - who asked has a fault; the answers behind belong to others
            _log.failure("an answer could not be taken")
        return True

    def fail(self) -> None:
        """Tell everybody who waits that no answer comes: the link is lost."""
        runs, self._runs = self._runs, deque()
        for run in runs:
            for _ in range(run.count):
                try:
                    run.sink(None)
                except Exception:  # noqa: BLE001 - see above
                    _log.failure("the loss of an answer could not be taken")
