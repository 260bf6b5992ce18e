"""A crash at each operation on the disk, whatever the disk keeps of what was not synced: what was acknowledged is found again."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import DiskFullError, StorageError
from hypercache.raft import HardState, Ready, SnapshotMeta
from hypercache.testing.crashes import SimulatedCrash
from hypercache.testing.disk import SimulatedDisk
from tests.persist.kept import MEMBERS, Kept, chunks_of, copied, entry, kept_in, ready, reopen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypercache.persist.raft_log import RaftStorage

SEGMENT_BYTES = 700


class Node:
    """A storage and what it must give back.

    Attributes:
        kept: what was acknowledged.
        allowed: what a crash now may leave.
    """

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.kept = Kept()
        self.allowed = [self.kept]
        self.storage: RaftStorage | None = None

    def open(self) -> None:
        self.storage, recovered = reopen(self.disk, SEGMENT_BYTES)
        assert kept_in(recovered) in self.allowed
        self.kept = kept_in(recovered)
        self.allowed = [self.kept]

    def write(self, *readies: Ready) -> None:
        assert self.storage is not None
        after = list(self.kept.after(list(readies)))
        self.allowed = [self.kept, *after]
        self.storage.write(readies)
        self._acknowledged(after[-1] if after else self.kept)

    def add(self, term: int, *data: str) -> None:
        index = self.kept.snapshot.index + len(self.kept.entries)
        self.write(ready(index + 1, *(entry(term, text) for text in data), state=(term, 8, index)))

    def save(self, index: int) -> None:
        assert self.storage is not None
        term = self.kept.entries[index - self.kept.snapshot.index - 1].term
        meta = SnapshotMeta(index, term, MEMBERS)
        after = self.kept.saved(meta)
        self.allowed = [self.kept, after]
        self.storage.save_snapshot(meta, [b"state of ", b"%d" % index])
        self._acknowledged(after)

    def found(self) -> None:
        assert self.storage is not None
        meta = SnapshotMeta(0, 0, MEMBERS)
        self.allowed = [self.kept, self.kept.saved(meta)]
        self.storage.found(MEMBERS)
        self._acknowledged(self.kept.saved(meta))

    def compact(self, index: int) -> None:
        assert self.storage is not None
        self.storage.compact(index)

    def receive(self, index: int, term: int, content: bytes) -> None:
        """Take a snapshot in three writes; the log behind it is the leader's."""
        meta = SnapshotMeta(index, term, MEMBERS)
        first, second, *rest = chunks_of(meta, content, size=len(content) // 3)
        self.write(Ready(number=1, hard_state=HardState(term, 0, 0), chunks=(first,)))
        self.write(Ready(number=2, chunks=(second,)))
        self.write(Ready(number=3, chunks=tuple(rest), snapshot=meta), ready(index + 1, entry(term, "behind")))

    def _acknowledged(self, kept: Kept) -> None:
        self.kept = kept
        self.allowed = [kept]


def life(node: Node) -> Iterator[Callable[[], None]]:
    """Yield what a node does, step by step; each may be cut off by a crash."""
    yield node.open
    yield node.found
    yield lambda: node.add(1, "one")
    yield lambda: node.add(1, "two", "three" * 300, "four")
    yield lambda: node.write(ready(state=(2, 9, 0)), ready(3, entry(2, "other"), state=(2, 9, 1)), ready(4, entry(2, "more")))
    for number in range(5, 12):
        yield lambda number=number: node.add(2, f"{number}" * 40)  # type: ignore[misc]
    yield lambda: node.save(6)
    yield lambda: node.compact(6)
    yield lambda: node.write(ready(9, entry(3, "again"), state=(3, 7, 8)))
    yield lambda: node.add(3, "zeros\0" + "\0" * 1100)
    yield lambda: node.save(10)
    yield lambda: node.compact(10)
    yield lambda: node.receive(40, 5, b"the state of the leader" * 30)
    yield lambda: node.add(5, "after it")
    for number in range(43, 50):
        yield lambda number=number: node.add(6, f"{number}" * 40)  # type: ignore[misc]
    yield lambda: node.receive(100, 7, b"once more" * 30)
    yield lambda: node.save(101)
    yield lambda: node.compact(101)
    yield lambda: node.add(7, "last")


def live(node: Node, steps: Callable[[Node], Iterator[Callable[[], None]]] = life) -> None:
    for step in steps(node):
        step()


def operations() -> int:
    node = Node(SimulatedDisk())
    passed = node.disk.points.count()
    live(node)
    return sum(passed.values())


def test_the_life_ends_as_it_should() -> None:
    node = Node(SimulatedDisk())
    live(node)
    assert kept_in(reopen(copied(node.disk), SEGMENT_BYTES)[1]) == node.kept
    assert node.kept.snapshot.index == 101


def crash_at(operation: int, seed: int) -> Node:
    """Return a node that crashed, with what its disk kept."""
    node = Node(SimulatedDisk())
    node.disk.points.strike(operation)
    with pytest.raises(SimulatedCrash):
        live(node)
    node.disk.points.spare()
    node.disk = node.disk.crash(random.Random(seed), keep=0.8)
    return node


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_operation_loses_nothing_acknowledged(seed: int) -> None:
    for operation in range(1, operations() + 1):
        node = crash_at(operation, seed * 10_000 + operation)
        node.open()
        assert node.storage is not None
        index, term = node.kept.snapshot.index + len(node.kept.entries), node.kept.term + 1
        node.write(ready(index + 1, entry(term, "goes on"), state=(term, 0, 0)))
        if node.kept.snapshot.index:
            assert b"".join(node.storage.load_snapshot())
        node.disk = copied(node.disk)
        node.open()


def test_a_crash_in_a_recovery_from_a_crash_loses_nothing_either() -> None:
    rng = random.Random(4)
    for operation in range(1, operations() + 1, 3):
        node = crash_at(operation, operation)
        for _ in range(3):
            node.disk.points.strike(rng.randrange(1, 12))
            with suppress(SimulatedCrash):
                node.open()
            node.disk.points.spare()
            node.disk = node.disk.crash(rng, keep=0.8)
        node.open()


@pytest.mark.parametrize("kind", ["append", "create", "any"])
def test_a_full_disk_leaves_what_was_there_and_may_be_emptied(kind: str) -> None:
    """Wherever it gets full, the same is done again once there is room."""
    total = sum(1 for _ in life(Node(SimulatedDisk())))
    for step_number in range(1, total):
        for fill in range(4):
            node = Node(SimulatedDisk())
            steps = list(life(node))
            for step in steps[:step_number]:
                step()
            if kind == "any":
                node.disk.full = True
            else:
                reach_full(node.disk, kind, fill)
            try:
                steps[step_number]()
            except DiskFullError:
                survivor = Node(copied(node.disk))
                survivor.allowed = list(node.allowed)
                node.disk.full = False
                node.allowed = [node.kept]
                for step in steps[step_number:]:
                    step()
                survivor.open()
            node.disk.full = False
            assert kept_in(reopen(copied(node.disk), SEGMENT_BYTES)[1]) == node.kept


def reach_full(disk: SimulatedDisk, kind: str, after: int) -> None:
    """Let the disk be full from some operation of a kind on."""
    reach = disk.points.reach
    seen = 0

    def watched(name: str) -> None:
        nonlocal seen
        if name.startswith(kind) and not name.endswith("done"):
            seen += 1
            if seen == after + 1:
                disk.full = True
        reach(name)

    disk.points = type("Watched", (), {"reach": staticmethod(watched)})()


def test_a_failed_sync_ends_the_storage_for_good() -> None:
    total = sum(1 for _ in life(Node(SimulatedDisk())))
    for step_number in range(1, total):
        node = Node(SimulatedDisk())
        steps = list(life(node))
        for step in steps[:step_number]:
            step()
        node.disk.fail_syncs = 1
        try:
            steps[step_number]()
        except DiskFullError:
            pytest.fail("the disk is not full")
        except StorageError:
            pass
        else:
            continue
        assert node.storage is not None
        for call in (
            lambda storage=node.storage: storage.write([ready(state=(99, 0, 0))]),
            lambda storage=node.storage: storage.compact(1),
            lambda storage=node.storage: storage.read(1, 0, 1),
            lambda storage=node.storage: storage.save_snapshot(SnapshotMeta(1000, 9, MEMBERS), []),
            lambda storage=node.storage: list(storage.load_snapshot()),
        ):
            with pytest.raises(StorageError, match="must end"):
                call()
        node.storage.close()
        node.disk = node.disk.crash(random.Random(step_number), keep=0.5)
        node.open()
