from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import DiskFullError, LogDamagedError
from hypercache.limits import RAFT_CHUNK_BYTES
from hypercache.persist.disk import DirectoryDisk
from hypercache.persist.raft_log import RaftStorage, open_raft_storage
from hypercache.raft import Ready, SnapshotMeta, snapshot_header, split_stream
from hypercache.testing.disk import SimulatedDisk
from tests.persist.kept import CLUSTER, MEMBERS, NODE, chunks_of, copied, entry, kept_in, put, ready, reopen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEN = SnapshotMeta(10, 1, MEMBERS)
TWENTY = SnapshotMeta(20, 2, MEMBERS)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def with_log(disk: SimulatedDisk) -> RaftStorage:
    storage, _ = reopen(disk)
    storage.write([ready(1, *(entry(1, f"{index}") for index in range(1, 16)), state=(1, 7, 0))])
    return storage


def snapshot_files(disk: SimulatedDisk) -> list[str]:
    return sorted(name for name in disk.names() if name.startswith("snapshot"))


def streamed(storage: RaftStorage, index: int, max_bytes: int) -> bytes:
    stream, last = b"", False
    while not last:
        read = storage.read(index, len(stream), max_bytes)
        assert read is not None
        piece, last = read
        assert 0 < len(piece) <= max_bytes
        stream += piece
    return stream


def test_a_snapshot_is_read_back_and_sent_as_it_was_saved(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    content = bytes(range(256)) * 10_000
    storage.save_snapshot(TEN, [content[:5], content[5:2_000_000], b"", content[2_000_000:]])
    for one in (storage, reopen(copied(disk))[0]):
        assert b"".join(one.load_snapshot()) == content
        assert streamed(one, 10, RAFT_CHUNK_BYTES) == snapshot_header(MEMBERS) + content
        assert streamed(one, 10, 100_000) == snapshot_header(MEMBERS) + content


def test_the_first_piece_holds_the_whole_header(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"state"])
    piece, last = storage.read(10, 0, RAFT_CHUNK_BYTES) or (b"", False)
    assert last
    assert split_stream(piece)[0] == MEMBERS


def test_there_is_nothing_to_read_of_another_snapshot_or_behind_its_end(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    assert storage.read(10, 0, 100) is None
    storage.save_snapshot(TEN, [b"state"])
    assert storage.read(9, 0, 100) is None
    assert storage.read(10, 10_000, 100) is None


def test_a_newer_snapshot_takes_the_place_of_older_ones(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(SnapshotMeta(5, 1, MEMBERS), [b"five"])
    storage.save_snapshot(TEN, [b"ten"])
    assert snapshot_files(disk) == ["snapshot-10-1.hc"]
    assert storage.read(5, 0, 100) is None
    assert reopen(copied(disk))[1].snapshot == TEN


def test_an_older_snapshot_is_not_saved(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"ten"])
    storage.save_snapshot(SnapshotMeta(5, 1, MEMBERS), [b"five"])
    assert b"".join(storage.load_snapshot()) == b"ten"


def test_a_snapshot_that_is_overtaken_while_it_is_written_is_dropped(disk: SimulatedDisk) -> None:
    storage = with_log(disk)

    def stream() -> Iterator[bytes]:
        yield b"ten"
        storage.write([ready(snapshot=TWENTY, state=(2, 0, 0))])

    storage.save_snapshot(TEN, stream())
    assert snapshot_files(disk) == ["snapshot-20-2.hc"]
    assert b"".join(storage.load_snapshot()) == b"state"


def test_a_snapshot_stays_while_it_is_loaded(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"x" * 3 * RAFT_CHUNK_BYTES])
    pieces = storage.load_snapshot()
    read = len(next(pieces))
    storage.write([ready(snapshot=TWENTY, state=(2, 0, 0))])
    assert snapshot_files(disk) == ["snapshot-10-1.hc", "snapshot-20-2.hc"]
    assert read + sum(map(len, pieces)) == 3 * RAFT_CHUNK_BYTES
    assert snapshot_files(disk) == ["snapshot-20-2.hc"]


def test_a_stream_that_fails_leaves_nothing(disk: SimulatedDisk) -> None:
    storage = with_log(disk)

    def stream() -> Iterator[bytes]:
        yield b"x" * 2 * RAFT_CHUNK_BYTES
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        storage.save_snapshot(TEN, stream())
    assert snapshot_files(disk) == []
    storage.save_snapshot(TEN, [b"ten"])


def test_a_full_disk_leaves_the_older_snapshot(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"ten"])
    disk.full = True
    with pytest.raises(DiskFullError):
        storage.save_snapshot(SnapshotMeta(15, 1, MEMBERS), [b"fifteen"])
    disk.full = False
    assert snapshot_files(disk) == ["snapshot-10-1.hc"]
    assert b"".join(storage.load_snapshot()) == b"ten"


def test_a_snapshot_from_the_leader_takes_the_place_of_the_log(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    content = b"0123456789" * 300_000
    *most, last = chunks_of(TWENTY, content)
    for chunk in most:
        storage.write([Ready(number=1, chunks=(chunk,))])
    storage.write([Ready(number=1, chunks=(last,), snapshot=TWENTY), ready(21, entry(2, "next"), state=(2, 9, 20))])
    for one, recovered in ((storage, None), reopen(copied(disk))):
        assert b"".join(one.load_snapshot()) == content
        if recovered is not None:
            assert recovered.snapshot == TWENTY
            assert recovered.entries == [entry(2, "next")]
            assert (recovered.hard_state.term, recovered.hard_state.vote) == (2, 9)
    assert [name for name in disk.names() if name.startswith("log")] == ["log-0000000002.hc"]


def test_the_vote_that_comes_with_a_snapshot_is_kept_with_it(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.write([ready(state=(3, 8, 0)), ready(snapshot=TWENTY, state=(4, 9, 20))])
    _, recovered = reopen(copied(disk))
    assert (recovered.hard_state.term, recovered.hard_state.vote, recovered.hard_state.commit) == (4, 9, 20)


def test_a_chunk_at_offset_0_begins_anew(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    other = chunks_of(SnapshotMeta(30, 2, MEMBERS), b"never whole" * 100, size=400)
    storage.write([Ready(number=1, chunks=other[:2])])
    storage.write([Ready(number=1, chunks=chunks_of(TWENTY, b"twenty")[:1], snapshot=TWENTY)])
    assert b"".join(storage.load_snapshot()) == b"twenty"


def test_chunks_longer_than_records_are_split(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    content = b"0123456789" * 300_000
    chunks = chunks_of(TWENTY, content, size=2 * RAFT_CHUNK_BYTES + 5)
    storage.write([Ready(number=1, chunks=chunks, snapshot=TWENTY)])
    storage, _ = reopen(copied(disk))
    assert b"".join(storage.load_snapshot()) == content
    assert streamed(storage, 20, 1 << 30) == snapshot_header(MEMBERS) + content


def test_a_full_disk_takes_back_the_chunks_of_a_write(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    chunks = chunks_of(TWENTY, b"0123456789" * 1000, size=2000)
    storage.write([Ready(number=1, chunks=chunks[:1])])
    disk.capacity = sum(map(disk.size, disk.names())) + 3000
    with pytest.raises(DiskFullError):
        storage.write([Ready(number=2, chunks=chunks[1:3])])
    disk.capacity = None
    storage.write([Ready(number=2, chunks=chunks[1:])])
    storage.write([Ready(number=3, snapshot=TWENTY)])
    assert b"".join(reopen(copied(disk))[0].load_snapshot()) == b"0123456789" * 1000


def test_what_a_full_disk_refused_is_written_again_as_a_whole() -> None:
    chunks = chunks_of(TWENTY, b"0123456789" * 1000, size=2000)
    other = chunks_of(SnapshotMeta(18, 2, MEMBERS), b"never whole" * 1000, size=2000)
    readies = [Ready(number=2, chunks=other[1:2]), Ready(number=3, chunks=chunks[:2]), ready(16, entry(1, "x" * 9000))]
    refused = 0
    for room in range(0, 12_000, 300):
        disk = SimulatedDisk()
        storage = with_log(disk)
        storage.write([Ready(number=1, chunks=other[:1])])
        disk.capacity = sum(map(disk.size, disk.names())) + room
        try:
            storage.write(readies)
        except DiskFullError:
            refused += 1
            disk.capacity = None
            storage.write(readies)
        disk.capacity = None
        storage.write([Ready(number=5, chunks=chunks[2:], snapshot=TWENTY)])
        assert b"".join(reopen(copied(disk))[0].load_snapshot()) == b"0123456789" * 1000
    assert 10 < refused < 40


def test_parts_and_older_snapshots_are_removed_at_the_next_start(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(SnapshotMeta(5, 1, MEMBERS), [b"five"])
    older = disk.read("snapshot-5-1.hc", 0, 10_000)
    storage.save_snapshot(TEN, [b"ten"])
    survivor = copied(disk)
    put(survivor, "snapshot-5-1.hc", older)
    put(survivor, "snapshot-incoming.part", b"half")
    put(survivor, "snapshot-own.part", b"")
    storage, recovered = reopen(survivor)
    assert snapshot_files(survivor) == ["snapshot-10-1.hc"]
    assert recovered.snapshot == TEN
    assert len(recovered.entries) == 5


def test_a_log_that_does_not_reach_the_snapshot_is_begun_anew_behind_it(disk: SimulatedDisk) -> None:
    with_log(disk)
    other = SimulatedDisk()
    reopen(other)[0].save_snapshot(TWENTY, [b"twenty"])
    survivor = copied(disk)
    put(survivor, "snapshot-20-2.hc", other.read("snapshot-20-2.hc", 0, 10_000))
    storage, recovered = reopen(survivor)
    assert (recovered.snapshot, recovered.entries) == (TWENTY, [])
    # The vote of an earlier term does not count in the snapshot's.
    assert (recovered.hard_state.term, recovered.hard_state.vote) == (2, 0)
    storage.write([ready(21, entry(2, "next"))])
    assert kept_in(reopen(copied(survivor))[1]).entries == (entry(2, "next"),)


@pytest.mark.parametrize("change", ["cut", "longer", "renamed"])
def test_a_snapshot_that_is_not_whole_is_refused(disk: SimulatedDisk, change: str) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"x" * 3 * RAFT_CHUNK_BYTES])
    survivor = copied(disk)
    name = "snapshot-10-1.hc"
    data = disk.read(name, 0, 1 << 30)
    if change == "renamed":
        survivor.replace(name, "snapshot-11-1.hc")
        name = "snapshot-11-1.hc"
    else:
        put(survivor, name, data[:-1] if change == "cut" else data + b"\0")
    with pytest.raises(LogDamagedError, match=name):
        list(reopen(survivor)[0].load_snapshot())


def test_damage_is_named_by_who_sends_a_snapshot(disk: SimulatedDisk) -> None:
    storage = with_log(disk)
    storage.save_snapshot(TEN, [b"x" * 3 * RAFT_CHUNK_BYTES])
    disk.damage("snapshot-10-1.hc", RAFT_CHUNK_BYTES + 1000)
    assert storage.read(10, 0, RAFT_CHUNK_BYTES) is not None
    with pytest.raises(LogDamagedError, match="checksum"):
        storage.read(10, RAFT_CHUNK_BYTES, RAFT_CHUNK_BYTES)


def test_memory_is_bounded_by_a_few_chunks(tmp_path: Path) -> None:
    storage, _ = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE)
    storage.write([ready(1, *(entry(1, f"{index}") for index in range(1, 16)), state=(1, 7, 0))])
    size = 40 * RAFT_CHUNK_BYTES
    tracemalloc.start()
    storage.save_snapshot(TEN, (b"y" * 70_000 for _ in range(size // 70_000)))
    assert sum(map(len, storage.load_snapshot())) == size // 70_000 * 70_000
    stream = snapshot_header(MEMBERS)
    offset, last = 0, False
    while not last:
        read = storage.read(10, offset, RAFT_CHUNK_BYTES)
        assert read is not None
        offset, last = offset + len(read[0]), read[1]
    assert offset == len(stream) + size // 70_000 * 70_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * RAFT_CHUNK_BYTES
