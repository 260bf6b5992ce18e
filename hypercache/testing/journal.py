"""A journal whose disk takes virtual time (`hypercache.consensus.contracts.Journal`)."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypercache.consensus.contracts import Storage
    from hypercache.raft import Ready
    from hypercache.testing.clock import HeapClock
    from hypercache.testing.crashes import CrashPoints


class SimulatedJournal:
    """Does blocking work in order, each after a while; who handed it in hears of it after another while, as from a thread.

    Args:
        clock: the true time.
        run: what a call of the node is handed to: it alone knows whether the node lives.
        points: passed before work (``"journal work"``), after it (``"journal worked"``), and once it was told of
            (``"journal told"``).
        seconds: returns how long the disk takes this time.
        told: returns how long it takes until the loop hears of it.
    """

    def __init__(
        self,
        clock: HeapClock,
        run: Callable[..., None],
        points: CrashPoints,
        seconds: Callable[[], float],
        told: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._run = run
        self._points = points
        self._seconds = seconds
        self._told = told
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = deque()
        self._stopped = False
        self._hear_at = 0.0

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Do work after all that was handed in before; then call ``done``."""
        self._jobs.append((work, done))
        if len(self._jobs) == 1:
            self._clock.schedule(self._seconds(), self._run, self._work)

    def write(self, storage: Storage, readies: Sequence[Ready], done: Callable[[Any, BaseException | None], None]) -> None:
        """Do ``storage.write(readies)``, as `run` does."""
        self.run(partial(storage.write, readies), done)

    def stop(self) -> None:
        """Do no more, and call nobody any more."""
        self._stopped = True
        self._jobs.clear()

    def _work(self) -> None:
        if self._stopped:
            return
        work, done = self._jobs[0]
        self._points.reach("journal work")
        result, fault = None, None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for who handed it in
            fault = error
        self._points.reach("journal worked")
        # What is told of later is heard later, as in the queue of a reactor.
        clock = self._clock
        self._hear_at = max(self._hear_at, clock.seconds() + self._told())
        clock.schedule(self._hear_at - clock.seconds(), self._run, self._tell, done, result, fault)
        self._jobs.popleft()
        if self._jobs:
            clock.schedule(self._seconds(), self._run, self._work)

    def _tell(self, done: Callable[[Any, BaseException | None], None], result: object, fault: Exception | None) -> None:
        if self._stopped:
            return
        done(result, fault)
        self._points.reach("journal told")
