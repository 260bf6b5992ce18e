from __future__ import annotations

import errno
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet import task
from twisted.internet.defer import Deferred

from hypercache.errors import BusyError, StorageError
from hypercache.limits import RAFT_JOURNAL_JOBS_MAX_COUNT
from hypercache.persist.disk import DirectoryDisk
from hypercache.persist.journal import KernelJournal, make_journal
from hypercache.persist.kernel_sync import KernelSync
from tests.persist.kept import entry, ready, reopen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hypercache.persist.raft_log import RaftStorage
    from hypercache.raft import Ready


class Loop:
    """A reactor that keeps what comes from threads, and what is put off, until it is asked to go on."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.readers: list[Any] = []

    def callFromThread(self, call: Callable[..., Any], *args: Any) -> None:
        self.calls.append((call, args))

    def callLater(self, delay: float, call: Callable[..., Any], *args: Any) -> None:
        self.calls.append((call, args))

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call, args in calls:
            call(*args)


class HeldSync:
    """A kernel whose sync ends when a test says so."""

    def __init__(self) -> None:
        self.eventfd = os.eventfd(0)
        self.started: list[int] = []
        self.ended = 0
        self.refusal: OSError | None = None
        self.error: OSError | None = None

    def start(self, descriptor: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(descriptor)

    def end(self) -> None:
        self.ended += 1
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        os.close(self.eventfd)


class Node:
    """A journal, its kernel, its log, and what is heard of it."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop()
        self.sync = HeldSync()
        self.disk = DirectoryDisk(directory)
        self.storage, _ = reopen(self.disk)
        self.journal = KernelJournal(self.loop, self.sync)  # type: ignore[arg-type]
        self.heard: list[tuple[str, BaseException | None]] = []
        self.last = 0

    def write(self, name: str, size: int = 10) -> None:
        self.last += 1
        readies = [ready(self.last, entry(1, b"x" * size), state=(1, 0, 0))]
        self.journal.write(self.storage, readies, lambda _, fault: self.heard.append((name, fault)))

    def run(self, name: str, work: Callable[[], Any] = int) -> None:
        self.journal.run(work, lambda _, fault: self.heard.append((name, fault)))

    def hear(self, count: int) -> list[str]:
        """Return the names of what was heard, once it is so much; the thread is waited for."""
        waiting = threading.Event()
        for _ in range(1000):
            self.loop.turn()
            if len(self.heard) >= count:
                break
            waiting.wait(0.01)
        return [name for name, _ in self.heard]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.journal.stop()


def test_what_is_small_is_written_at_once_and_told_of_when_it_is_synced(node: Node) -> None:
    node.write("first")
    assert node.sync.started
    node.loop.turn()
    assert not node.heard, "it is not durable yet"
    node.journal.doRead()
    assert node.heard == [("first", None)]
    assert [each.data for each in reopen(node.disk)[1].entries] == [b"x" * 10]


def test_what_comes_while_the_kernel_syncs_waits_for_that(node: Node) -> None:
    node.write("first")
    node.run("second", lambda: node.heard.append(("work", None)))
    node.write("third")
    node.loop.turn()
    assert not node.heard
    assert len(node.sync.started) == 1
    node.journal.doRead()
    assert node.hear(4) == ["first", "work", "second", "third"] or node.hear(4) == ["work", "first", "second", "third"]


def test_a_write_behind_work_of_the_thread_waits_for_that(node: Node) -> None:
    go = threading.Event()
    node.run("first", lambda: go.wait(10))
    node.write("second")
    assert not node.sync.started
    go.set()
    assert node.hear(2) == ["first", "second"]
    node.write("third")
    assert node.sync.started


def test_what_is_not_small_goes_to_the_thread(node: Node) -> None:
    node.write("large", 1 << 20)
    assert not node.sync.started
    assert node.hear(1) == ["large"]


def test_a_sync_that_fails_is_told_and_nothing_is_written_any_more(node: Node) -> None:
    node.sync.error = OSError(errno.EIO, "on purpose")
    node.write("first")
    node.journal.doRead()
    ((_, fault),) = node.heard
    assert isinstance(fault, StorageError)
    node.write("second")
    assert len(node.heard) == 1, "who writes is not called before it has returned"
    node.loop.turn()
    assert isinstance(node.heard[1][1], StorageError)


def test_a_kernel_that_refuses_is_asked_once_and_the_thread_syncs(node: Node) -> None:
    node.sync.refusal = OSError(errno.EINVAL, "on purpose")
    node.write("first")
    assert node.hear(1) == ["first"]
    node.sync.refusal = None
    node.write("second")
    assert node.hear(2) == ["first", "second"]
    assert not node.sync.started
    assert all(fault is None for _, fault in node.heard)


def test_one_that_fails_to_listen_does_not_deafen_the_next(node: Node) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    node.journal.write(node.storage, [ready(1, entry(1, "x"), state=(1, 0, 0))], fail)
    node.run("next")
    node.journal.doRead()
    assert node.hear(1) == ["next"]


def test_what_waits_for_the_kernel_is_bounded(node: Node) -> None:
    node.write("first")
    for _ in range(RAFT_JOURNAL_JOBS_MAX_COUNT):
        node.run("more")
    with pytest.raises(BusyError, match=f"{RAFT_JOURNAL_JOBS_MAX_COUNT} jobs wait"):
        node.run("too many")


def test_stopping_waits_for_the_sync_and_tells_nobody(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write("first")
    node.run("second")
    node.journal.stop()
    assert node.sync.ended == 1
    node.loop.turn()
    assert not node.heard
    assert not node.loop.readers
    with pytest.raises(BusyError, match="stopped"):
        node.write("third")


def test_a_waking_for_nothing_tells_nobody(node: Node) -> None:
    node.journal.doRead()
    assert node.sync.ended == 0


@pytest_twisted.inlineCallbacks
def test_a_real_kernel_wakes_a_real_reactor(tmp_path: Path) -> Any:
    journal = make_journal(global_reactor)
    storage, _ = reopen(DirectoryDisk(tmp_path))
    for index in range(1, 30):
        heard: Deferred[BaseException | None] = Deferred()
        journal.write(storage, _readies(index), partial(_hear, heard))
        assert (yield heard) is None
    journal.stop()
    # What the reactor had noticed already comes to nothing.
    yield task.deferLater(global_reactor, 0)
    assert len(reopen(DirectoryDisk(tmp_path))[1].entries) == 29


def _hear(heard: Deferred[BaseException | None], _: object, fault: BaseException | None) -> None:
    heard.callback(fault)


def _readies(index: int) -> list[Ready]:
    return [ready(index, entry(1, f"{index}"), state=(1, 0, 0))]


def test_without_the_kernels_help_a_thread_does_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_: KernelSync) -> None:
        raise OSError(errno.ENOSYS, "on purpose")

    monkeypatch.setattr(KernelSync, "__init__", refuse)
    loop = Loop()
    journal = make_journal(loop)
    assert not isinstance(journal, KernelJournal)
    storage: RaftStorage = reopen(DirectoryDisk(tmp_path))[0]
    done = threading.Event()
    journal.write(storage, _readies(1), lambda *_: None)
    journal.run(done.set, lambda *_: None)
    assert done.wait(10)
    journal.stop()
    assert len(reopen(DirectoryDisk(tmp_path))[1].entries) == 1
