from __future__ import annotations

import errno
import random

import pytest

from hypercache.persist.disk import SECTOR_BYTES
from hypercache.testing.crashes import CrashPoints, SimulatedCrash
from hypercache.testing.disk import SimulatedDisk, kind_of

SEEDS = range(60)


def written(disk: SimulatedDisk, name: str = "log-1.hc", data: bytes = b"synced", reserve: int = 0) -> SimulatedDisk:
    file = disk.create(name, reserve)
    file.append(data)
    file.sync()
    disk.sync()
    return disk


def contents(disk: SimulatedDisk) -> dict[str, bytes]:
    return {name: disk.read(name, 0, 1 << 20) for name in disk.names()}


def test_what_is_appended_is_read() -> None:
    disk = SimulatedDisk()
    file = disk.create("log-1.hc")
    file.append(b"abc")
    file.append(b"def")
    assert disk.read("log-1.hc", 2, 3) == b"cde"
    assert disk.size("log-1.hc") == 6
    file.truncate(4)
    file.append(b"X")
    assert disk.read("log-1.hc", 0, 99) == b"abcdX"
    disk.open("log-1.hc").append(b"Y")
    assert disk.read("log-1.hc", 0, 99) == b"abcdXY"
    disk.replace("log-1.hc", "log-2.hc")
    assert disk.names() == ["log-2.hc"]
    disk.remove("log-2.hc")
    for call in (disk.size, disk.remove, disk.open):
        with pytest.raises(FileNotFoundError):
            call("log-2.hc")


def test_a_reserved_file_is_zeros_that_appending_replaces() -> None:
    disk = SimulatedDisk()
    disk.create("log-1.hc", 10).append(b"abc")
    assert disk.read("log-1.hc", 0, 99) == b"abc" + bytes(7)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_synced_survives_every_crash(seed: int) -> None:
    disk = written(SimulatedDisk())
    disk.open("log-1.hc").append(b" and more")
    left = contents(disk.crash(random.Random(seed)))["log-1.hc"]
    assert left.startswith(b"synced")


def test_unsynced_bytes_are_lost_kept_torn_or_zeros() -> None:
    whole = b"synced" + b"x" * 3 * SECTOR_BYTES
    outcomes = set()
    for seed in SEEDS:
        disk = written(SimulatedDisk())
        disk.open("log-1.hc").append(whole[6:])
        left = contents(disk.crash(random.Random(seed)))["log-1.hc"]
        if left == b"synced":
            outcomes.add("lost")
        elif left == whole:
            outcomes.add("kept")
        elif whole.startswith(left):
            outcomes.add("torn")
        else:
            assert set(left[6:]) <= {0, ord("x")}
            outcomes.add("holes")
    assert outcomes == {"lost", "kept", "torn", "holes"}


def test_in_a_reserved_place_whole_sectors_are_kept_or_not() -> None:
    kinds = set()
    for seed in SEEDS:
        disk = SimulatedDisk()
        file = disk.create("log-1.hc", 3 * SECTOR_BYTES)
        file.sync()
        disk.sync()
        file.append(b"x" * 2 * SECTOR_BYTES)
        left = contents(disk.crash(random.Random(seed)))["log-1.hc"]
        sectors = [left[at : at + SECTOR_BYTES] for at in range(0, len(left), SECTOR_BYTES)]
        assert all(sector in (bytes(SECTOR_BYTES), b"x" * SECTOR_BYTES) for sector in sectors)
        kinds.add(tuple(sector[0] for sector in sectors))
    assert {(0, 0, 0), (120, 0, 0), (0, 120, 0), (120, 120, 0)} <= kinds


def test_names_are_durable_only_with_the_directory() -> None:
    found = set()
    for seed in SEEDS:
        disk = written(SimulatedDisk())
        disk.create("snapshot-1.hc.part").sync()
        disk.replace("snapshot-1.hc.part", "snapshot-1.hc")
        disk.remove("log-1.hc")
        found.add(frozenset(disk.crash(random.Random(seed)).names()))
    assert frozenset(["log-1.hc"]) in found
    assert frozenset(["snapshot-1.hc"]) in found
    assert len(found) > 3
    disk = written(SimulatedDisk())
    disk.remove("log-1.hc")
    disk.sync()
    assert disk.crash(random.Random(1)).names() == []


def test_without_luck_a_crash_keeps_nothing_unsynced() -> None:
    for seed in SEEDS:
        disk = written(SimulatedDisk())
        disk.open("log-1.hc").append(b"more")
        disk.create("log-2.hc")
        assert contents(disk.crash(random.Random(seed), keep=0.0)) == {"log-1.hc": b"synced"}


def test_a_dead_disk_answers_nobody() -> None:
    disk = written(SimulatedDisk())
    file = disk.open("log-1.hc")
    disk.crash(random.Random(1))
    for call in (disk.names, lambda: disk.create("x"), lambda: file.append(b""), file.sync, disk.sync):
        with pytest.raises(SimulatedCrash):
            call()


def test_a_disk_is_clean_when_all_that_is_there_is_durable() -> None:
    disk = SimulatedDisk()
    assert disk.clean
    file = disk.create("log-1.hc")
    file.append(b"x")
    assert not disk.clean
    file.sync()
    assert not disk.clean
    disk.sync()
    assert disk.clean
    disk.create("snapshot-1.hc.part").append(b"unfinished")
    assert disk.clean
    disk.replace("snapshot-1.hc.part", "snapshot-1.hc")
    assert not disk.clean


def test_a_disk_without_room_takes_a_part_and_says_so() -> None:
    disk = SimulatedDisk(capacity=10)
    file = disk.create("log-1.hc")
    file.append(b"12345678")
    with pytest.raises(OSError) as caught:
        file.append(b"abcdef")
    assert caught.value.errno == errno.ENOSPC
    assert disk.read("log-1.hc", 0, 99) == b"12345678ab"
    with pytest.raises(OSError):
        disk.create("log-2.hc")
    file.truncate(8)
    file.append(b"ab")


def test_a_full_disk_takes_nothing_even_where_a_place_is_reserved() -> None:
    disk = SimulatedDisk()
    file = disk.create("log-1.hc", 100)
    disk.full = True
    with pytest.raises(OSError, match="space"):
        file.append(b"ab")
    disk.full = False
    file.append(b"ab")


def test_after_a_failed_sync_nothing_of_the_file_becomes_durable_any_more() -> None:
    disk = written(SimulatedDisk())
    file = disk.open("log-1.hc")
    file.append(b"more")
    disk.fail_syncs = 1
    with pytest.raises(OSError) as caught:
        file.sync()
    assert caught.value.errno == errno.EIO
    file.sync()
    assert not disk.clean
    assert contents(disk.crash(random.Random(1))) == {"log-1.hc": b"synced"}


def test_a_bad_disk_flips_bits_that_were_durable() -> None:
    disk = written(SimulatedDisk())
    disk.damage("log-1.hc", 0, 0x20)
    assert contents(disk.crash(random.Random(1))) == {"log-1.hc": b"Synced"}


def test_kinds_of_files_go_without_their_numbers() -> None:
    assert kind_of("log-0000000012.hc") == "log"
    assert kind_of("snapshot-1-2.hc") == "snapshot"
    assert kind_of("snapshot-own.part") == "snapshot.part"


def test_a_strike_kills_at_the_named_point_and_nothing_happens_behind_it() -> None:
    points = CrashPoints()
    disk = SimulatedDisk(points)
    file = disk.create("log-1.hc")
    struck: list[str] = []
    points.strike(2, "append log", struck.append)
    file.append(b"a")
    with pytest.raises(SimulatedCrash, match="append log"):
        file.append(b"b")
    assert struck == ["append log"]
    assert disk.size("log-1.hc") == 1
    # What catches the exception to clean up is dead as well.
    with pytest.raises(SimulatedCrash):
        disk.remove("log-1.hc")
    points.spare()
    disk.remove("log-1.hc")


def test_a_strike_without_a_name_counts_every_point() -> None:
    points = CrashPoints()
    passed = points.count()
    disk = SimulatedDisk(points)
    points.strike(4)
    file = disk.create("log-1.hc")
    with pytest.raises(SimulatedCrash):
        file.append(b"a")
    assert passed == {"create log": 1, "create log done": 1, "append log": 1, "append log done": 1}
    assert disk._names["log-1.hc"].data == b"a"
