"""A thread that waits for the disk, so that the loop need not (`hypercache.consensus.contracts.Journal`)."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from hypercache.errors import BusyError
from hypercache.limits import RAFT_JOURNAL_JOBS_MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorFromThreads

    Done = Callable[[Any, BaseException | None], None]


class JournalThread:
    """Does blocking work in order, in a thread of its own; who handed it in hears of it on the loop.

    Args:
        reactor: where it hears of it.
        name: of the thread.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, name: str = "journal") -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        # What is done and not told yet; whoever finds it empty wakes the loop, which takes all of it.
        self._finished: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._lock = threading.Lock()
        self._waking = False
        self._pending = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Any], done: Done) -> None:
        """Do work after all that was handed in before; then call ``done`` on the loop with its result, or what it raised.

        Raises:
            BusyError: `RAFT_JOURNAL_JOBS_MAX_COUNT` wait already, or it is stopped.
        """
        if self._stopped or self._pending >= RAFT_JOURNAL_JOBS_MAX_COUNT:
            raise BusyError("the journal is stopped" if self._stopped else f"{self._pending} jobs wait for the disk")
        self._pending += 1
        self._jobs.put((work, done))

    def stop(self) -> None:
        """Wait for what is being done, do no more, and call nobody any more."""
        self._stopped = True
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped:
            work, done = job
            result, fault = None, None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is for who handed it in
                fault = error
            with self._lock:
                self._finished.append((done, result, fault))
                wake, self._waking = not self._waking, True
            if wake and not self._stopped:
                self._reactor.callFromThread(self._tell)
            # Nothing of it is kept alive while the next one is waited for.
            del job, work, done, result, fault

    def _tell(self) -> None:
        with self._lock:
            finished = list(self._finished)
            self._finished.clear()
            self._waking = False
        for done, result, fault in finished:
            self._pending -= 1
            if self._stopped:
                return
            try:
                done(result, fault)
            except Exception:  # noqa: BLE001 - the next one must hear of its own
                self._log.failure("what waited for the disk failed")
