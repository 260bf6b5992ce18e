"""What waits for the disk, so that the loop need not (`hypercache.consensus.contracts.Journal`).

A thread can do any work, but hands the interpreter's lock to and fro with the loop, which costs more than a small write does. So
what fits into the page cache at once is written by the loop, and the kernel alone syncs it (`hypercache.persist.kernel_sync`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.errors import BusyError, StorageError
from hypercache.limits import RAFT_JOURNAL_JOBS_MAX_COUNT
from hypercache.persist.kernel_sync import KernelSync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorFromThreads
    from twisted.python.failure import Failure

    from hypercache.consensus.contracts import Storage
    from hypercache.raft import Ready

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

    @property
    def idle(self) -> bool:
        """Whether all that was handed in is done and told."""
        return not self._pending

    def write(self, storage: Storage, readies: Sequence[Ready], done: Done) -> None:
        """Do ``storage.write(readies)``, as `run` does.

        Raises:
            BusyError: as `run`.
        """
        self.run(partial(storage.write, readies), done)

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


@implementer(IReadDescriptor)
class KernelJournal:
    """Has the kernel sync what the loop has written, and a thread do all else; one at a time, in order.

    Args:
        reactor: where is heard of it.
        sync: the kernel.
        name: of the thread.
    """

    _log = Logger()

    def __init__(self, reactor: Any, sync: KernelSync, name: str = "journal") -> None:
        self._reactor = reactor
        self._sync = sync
        self._thread = JournalThread(reactor, name)
        # Of the write that the kernel syncs: where it is, and who hears of it.
        self._syncing: tuple[Storage, Done] | None = None
        # What must wait for that.
        self._behind: list[tuple[Callable[[], Any], Done]] = []
        self._stopped = False
        # It cannot after all.
        self._refused = False
        reactor.addReader(self)

    def run(self, work: Callable[[], Any], done: Done) -> None:
        """Do work after all that was handed in before; then call ``done`` on the loop with its result, or what it raised.

        Raises:
            BusyError: `RAFT_JOURNAL_JOBS_MAX_COUNT` wait already, or it is stopped.
        """
        if self._syncing is None:
            self._thread.run(work, done)
        elif len(self._behind) >= RAFT_JOURNAL_JOBS_MAX_COUNT:
            raise BusyError(f"{len(self._behind)} jobs wait for the disk")
        else:
            self._behind.append((work, done))

    def write(self, storage: Storage, readies: Sequence[Ready], done: Done) -> None:
        """Do ``storage.write(readies)``, as `run` does, without the thread where it is small and nothing is before it.

        Raises:
            BusyError: as `run`.
        """
        if self._syncing is not None or self._refused or self._stopped or not self._thread.idle:
            self.run(partial(storage.write, readies), done)
            return
        try:
            descriptor = storage.append(readies)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for who handed it in, and not before this has returned
            self._reactor.callLater(0, self._tell, done, error)
            return
        if descriptor is None:
            self._thread.write(storage, readies, done)
            return
        try:
            self._sync.start(descriptor)
        except OSError as error:
            # A file system that knows no such thing, or a kernel: the thread can do it.
            self._refused = True
            self._log.warn("the kernel does not sync the log by itself ({reason}): a thread does", reason=error)
            self._thread.run(partial(os.fdatasync, descriptor), lambda _, fault: self._synced(storage, done, fault))
        else:
            self._syncing = storage, done

    def _synced(self, storage: Storage, done: Done, fault: BaseException | None) -> None:
        try:
            storage.synced(fault)
        except StorageError as error:
            fault = error
        self._tell(done, fault)

    def _tell(self, done: Done, fault: BaseException | None) -> None:
        if self._stopped:
            return
        try:
            done(None, fault)
        except Exception:  # noqa: BLE001 - see `JournalThread`
            self._log.failure("what waited for the disk failed")

    def stop(self) -> None:
        """Wait for what is being done, do no more, and call nobody any more."""
        self._stopped = True
        self._reactor.removeReader(self)
        if self._syncing is not None:
            self._syncing = None
            with suppress(OSError):
                self._sync.end()
        self._thread.stop()
        self._behind.clear()
        self._sync.close()

    # IReadDescriptor

    def fileno(self) -> int:
        """Return what can be read when a sync has ended."""
        return self._sync.eventfd

    def doRead(self) -> None:
        """Tell of the sync that has ended, and go on with what waited for it."""
        if self._syncing is None:
            return
        storage, done = self._syncing
        self._syncing = None
        fault: OSError | None = None
        try:
            self._sync.end()
        except OSError as error:
            fault = error
        behind, self._behind = self._behind, []
        for work, told in behind:
            self._thread.run(work, told)
        self._synced(storage, done, fault)

    def logPrefix(self) -> str:
        """Return the name in log lines."""
        return "KernelJournal"

    def connectionLost(self, reason: Failure) -> None:
        """Nothing more is heard: the reactor stops."""


def make_journal(reactor: Any) -> JournalThread | KernelJournal:
    """Return a journal for a log: with the kernel's help where the platform gives it.

    Args:
        reactor: where is heard of it.
    """
    try:
        sync = KernelSync()
    except OSError:
        return JournalThread(reactor)
    return KernelJournal(reactor, sync)
