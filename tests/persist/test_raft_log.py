from __future__ import annotations

import errno
import gc
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hypercache.cli.frames import inspect
from hypercache.errors import ConfigurationError, DiskFullError, LogDamagedError, StorageError
from hypercache.limits import RAFT_RECORD_BYTES
from hypercache.persist.disk import DirectoryDisk
from hypercache.persist.raft_log import open_raft_storage
from hypercache.persist.segments import segment_numbers
from hypercache.raft import HardState, Raft, SnapshotMeta
from hypercache.testing.disk import SimulatedDisk
from tests.persist.kept import CLUSTER, MEMBERS, NODE, Kept, copied, entry, kept_in, ready, reopen

if TYPE_CHECKING:
    from pathlib import Path

    from hypercache.wire.messages import LogEntry


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def segments(disk: SimulatedDisk) -> list[int]:
    return segment_numbers(disk.names())


def some(term: int, first: int, last: int) -> list[LogEntry]:
    return [entry(term, f"{index} of {term}") for index in range(first, last + 1)]


def test_an_empty_directory_gives_nothing_and_is_empty(disk: SimulatedDisk) -> None:
    storage, recovered = reopen(disk)
    assert kept_in(recovered) == Kept()
    assert storage.is_empty
    assert list(storage.load_snapshot()) == []


def test_what_was_written_is_found_again(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(1, *some(2, 1, 3), state=(2, 8, 0)), ready(4, entry(2, "four"), state=(2, 8, 3))])
    assert not storage.is_empty
    _, recovered = reopen(copied(disk))
    assert recovered.hard_state == HardState(2, 8, 3)
    assert recovered.entries == [*some(2, 1, 3), entry(2, "four")]


def test_one_write_is_one_append_and_one_sync(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    writes, syncs = disk.writes, disk.syncs
    storage.write([ready(index, *some(2, index, index), state=(2, 8, index - 1)) for index in range(1, 9)])
    assert (disk.writes - writes, disk.syncs - syncs) == (1, 1)


def test_a_vote_without_entries_is_found_again(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(state=(4, 9, 0))])
    _, recovered = reopen(copied(disk))
    assert kept_in(recovered) == Kept(4, 9)


def test_what_changes_nothing_writes_nothing(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(1, entry(1, "a"), state=(1, 7, 0))])
    syncs = disk.syncs
    storage.write([ready(state=(1, 7, 1))])
    storage.write([])
    assert disk.syncs == syncs


def test_the_commit_index_is_kept_as_a_hint_with_the_next_entries(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(1, *some(1, 1, 5), state=(1, 7, 0))])
    storage.write([ready(state=(1, 7, 4))])
    storage.write([ready(6, *some(1, 6, 6))])
    assert reopen(copied(disk))[1].hard_state.commit == 4


def test_entries_replace_all_from_their_first_index_on(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(1, *some(1, 1, 5), state=(1, 0, 0))])
    storage.write([ready(3, entry(2, "other"), state=(2, 0, 0))])
    storage.write([ready(4, entry(2, "more"))])
    assert reopen(copied(disk))[1].entries == [*some(1, 1, 2), entry(2, "other"), entry(2, "more")]


def test_a_conflict_is_resolved_across_segments(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    for index in range(1, 60):
        storage.write([ready(index, *some(1, index, index), state=(1, 0, 0))])
    assert len(segments(disk)) > 3
    storage.write([ready(5, *some(2, 5, 6), state=(2, 0, 0))])
    assert reopen(copied(disk))[1].entries == some(1, 1, 4) + some(2, 5, 6)


def test_a_new_segment_begins_where_the_old_one_is_full_and_carries_the_state(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    storage.write([ready(state=(3, 9, 0))])
    for index in range(1, 40):
        storage.write([ready(index, *some(3, index, index))])
    found = segments(disk)
    assert found == list(range(1, len(found) + 1))
    assert all(disk.size(name) <= 512 for name in disk.names())
    survivor = copied(disk)
    storage, recovered = reopen(survivor, 512)
    assert kept_in(recovered) == Kept(3, 9, SnapshotMeta(), tuple(some(3, 1, 39)))
    storage.save_snapshot(SnapshotMeta(39, 3, MEMBERS), [b"state"])
    storage.compact(39)
    assert segments(survivor) == [found[-1]]
    assert kept_in(reopen(copied(survivor))[1]) == Kept(3, 9, SnapshotMeta(39, 3, MEMBERS))


def test_long_batches_are_split_and_an_entry_over_the_bound_stands_alone(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 1 << 24)
    large = [entry(1, bytes([number]) * (RAFT_RECORD_BYTES // 3)) for number in range(1, 6)]
    huge = entry(2, b"h" * (2 * RAFT_RECORD_BYTES))
    storage.write([ready(1, *large, huge, entry(2, "small"), state=(2, 0, 0))])
    assert reopen(copied(disk))[1].entries == [*large, huge, entry(2, "small")]


def test_only_what_a_snapshot_covers_is_compacted(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    for index in range(1, 60):
        storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
    before = segments(disk)
    storage.compact(59)
    assert segments(disk) == before
    storage.save_snapshot(SnapshotMeta(30, 1, MEMBERS), [b"state"])
    storage.compact(10)
    ten = segments(disk)
    storage.compact(59)
    thirty = segments(disk)
    assert len(before) > len(ten) > len(thirty) > 1
    _, recovered = reopen(copied(disk), 512)
    assert recovered.entries == some(1, 31, 59)
    assert recovered.snapshot == SnapshotMeta(30, 1, MEMBERS)


def test_compaction_keeps_what_is_behind_the_snapshot_wherever_segments_begin(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    for index in range(1, 30):
        storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
        survivor = copied(disk)
        for covered in range(1, index + 1):
            one, recovered = reopen(survivor, 512)
            assert recovered.entries == some(1, covered, index)
            one.save_snapshot(SnapshotMeta(covered, 1, MEMBERS), [b"state"])
            one.compact(covered)
            survivor = copied(survivor)
        assert reopen(survivor, 512)[1].entries == []


def test_a_restart_goes_on_where_it_was(disk: SimulatedDisk) -> None:
    survivor = disk
    for index in range(1, 30):
        storage, recovered = reopen(survivor, 512)
        assert recovered.entries == some(1, 1, index - 1)
        storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
        storage.close()
        survivor = copied(survivor)


def test_a_restart_that_writes_nothing_adds_no_segment(disk: SimulatedDisk) -> None:
    for _ in range(20):
        reopen(disk)[0].close()
    assert segments(disk) == [1]


def test_a_group_is_founded_once(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    assert storage.found(MEMBERS) == SnapshotMeta(0, 0, MEMBERS)
    assert not storage.is_empty
    with pytest.raises(ConfigurationError, match="founded once"):
        storage.found(MEMBERS)
    storage, recovered = reopen(copied(disk))
    assert recovered.snapshot == SnapshotMeta(0, 0, MEMBERS)
    assert list(storage.load_snapshot()) == []
    with pytest.raises(ConfigurationError, match="founded once"):
        storage.found(MEMBERS)


@pytest.mark.parametrize("what", ["vote", "entries"])
def test_a_group_is_not_founded_where_a_node_has_taken_part_in_one(disk: SimulatedDisk, what: str) -> None:
    storage, _ = reopen(disk)
    storage.write([ready(state=(1, 8, 0)) if what == "vote" else ready(1, entry(1, "a"), state=(1, 0, 0))])
    with pytest.raises(ConfigurationError, match="founded once"):
        reopen(copied(disk))[0].found(MEMBERS)


@pytest.mark.parametrize(("cluster", "node"), [(CLUSTER, NODE + 1), (CLUSTER + 1, NODE)])
def test_another_nodes_log_is_refused(disk: SimulatedDisk, cluster: int, node: int) -> None:
    reopen(disk)
    with pytest.raises(ConfigurationError, match=f"the log of node {NODE} in cluster {CLUSTER}"):
        open_raft_storage(copied(disk), cluster, node)


def test_a_missing_segment_is_damage(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    for index in range(1, 60):
        storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
    for number in segments(disk)[:-1]:
        survivor = copied(disk)
        survivor.remove(f"log-{number:010d}.hc")
        with pytest.raises(LogDamagedError, match="missing"):
            reopen(survivor, 512)


def test_a_snapshot_without_its_log_is_refused(disk: SimulatedDisk) -> None:
    reopen(disk)[0].found(MEMBERS)
    disk.remove("log-0000000001.hc")
    with pytest.raises(LogDamagedError, match="the log is missing"):
        reopen(copied(disk))


def test_segments_in_front_of_a_gap_that_compaction_left_are_removed(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk, 512)
    for index in range(1, 60):
        storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
    storage.save_snapshot(SnapshotMeta(58, 1, MEMBERS), [b"state"])
    survivor = copied(disk)
    survivor.remove("log-0000000002.hc")
    _, recovered = reopen(survivor, 512)
    assert recovered.entries == some(1, 59, 59)
    assert 1 not in segments(survivor)


def test_a_closed_storage_takes_nothing_more(disk: SimulatedDisk) -> None:
    storage, _ = reopen(disk)
    storage.close()
    storage.close()
    with pytest.raises(StorageError, match="closed"):
        storage.write([ready(state=(1, 0, 0))])


def test_the_core_starts_from_what_is_found(disk: SimulatedDisk) -> None:
    from random import Random

    from hypercache.raft import Options

    storage, _ = reopen(disk)
    storage.found(MEMBERS)
    storage.write([ready(1, *some(2, 1, 3), state=(2, 8, 2))])
    _, recovered = reopen(copied(disk))
    raft = Raft(NODE, Options(), Random(1), hard_state=recovered.hard_state, snapshot=recovered.snapshot, entries=recovered.entries)
    assert (raft.term, raft.vote, raft.commit, raft.log.last_index) == (2, 8, 2, 3)
    assert raft.configuration == MEMBERS


def test_inspect_prints_the_files_of_a_stopped_node(tmp_path: Path) -> None:
    storage, _ = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE, segment_bytes=4096)
    storage.found(MEMBERS)
    for index in range(1, 100):
        storage.write([ready(index, *some(1, index, index), state=(1, 7, index - 1))])
    storage.save_snapshot(SnapshotMeta(50, 1, MEMBERS), [b"x" * 10, b"y" * 3_000_000])
    storage.close()
    seen = ""
    for file in sorted(tmp_path.iterdir()):
        result = CliRunner().invoke(inspect, [str(file), "--json"])
        assert result.exit_code == 0, result.output[-500:]
        seen += result.output
    assert all(f'"name": "{name}"' in seen for name in ("LogSegment", "LogState", "AppendEntries", "LogBatch", "InstallSnapshot"))


def test_the_log_in_a_real_directory(tmp_path: Path) -> None:
    for start in range(1, 100, 10):
        storage, recovered = open_raft_storage(DirectoryDisk(tmp_path / "raft"), CLUSTER, NODE, segment_bytes=1024)
        assert recovered.entries == some(1, 1, start - 1)
        for index in range(start, start + 10):
            storage.write([ready(index, *some(1, index, index), state=(1, 7, 0))])
        if start % 20 == 1:
            storage.close()


def test_a_batch_that_fits_in_part_is_cut_off_a_real_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, _ = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE)
    storage.write([ready(1, *some(1, 1, 3), state=(1, 7, 0))])
    pwrite = os.pwrite
    room = 100

    def write(descriptor: int, data: bytes, at: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = pwrite(descriptor, bytes(data)[:room], at)
        room -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", write)
        with pytest.raises(DiskFullError, match="cannot grow"):
            storage.write([ready(4, *some(1, 4, 20))])
    storage.write([ready(4, *some(2, 4, 5), state=(2, 7, 0))])
    storage.close()
    _, recovered = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE)
    assert recovered.entries == some(1, 1, 3) + some(2, 4, 5)


def test_a_large_log_is_read_with_little_more_memory_than_its_entries_take(tmp_path: Path) -> None:
    storage, _ = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE, segment_bytes=1 << 22)
    batch = [entry(1, b"%06d" % number * 20) for number in range(1000)]
    for start in range(1, 100_000, 1000):
        storage.write([ready(start, *batch, state=(1, 7, 0))])
    storage.save_snapshot(SnapshotMeta(90_000, 1, MEMBERS), [b"state"])
    storage.close()
    gc.collect()
    tracemalloc.start()
    _, recovered = open_raft_storage(DirectoryDisk(tmp_path), CLUSTER, NODE)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(recovered.entries) == 10_000
    assert kept < 10_000 * 300
    assert peak - kept < 1 << 23
