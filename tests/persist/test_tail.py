"""What a crash tears is cut off; what is damaged is refused; what was acknowledged is never dropped silently."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from random import Random
from typing import TYPE_CHECKING

import pytest

from hypercache.errors import LogDamagedError
from hypercache.persist.disk import SECTOR_BYTES
from hypercache.persist.records import BATCH_END_BYTES
from hypercache.persist.segments import segment_name
from hypercache.raft import SnapshotMeta
from hypercache.testing.crashes import SimulatedCrash
from hypercache.testing.disk import SimulatedDisk
from hypercache.wire.header import frame
from hypercache.wire.messages import AppendEntries, LogBatch, LogSegment, LogState
from tests.persist.kept import MEMBERS, Kept, copied, entry, kept_in, put, ready, reopen

if TYPE_CHECKING:
    from hypercache.persist.records import Record

NAME = segment_name(1)
RESERVED = 6144


def content(disk: SimulatedDisk) -> bytes:
    return disk.read(NAME, 0, disk.size(NAME))


def written(disk: SimulatedDisk) -> int:
    return len(content(disk).rstrip(b"\0"))


def holding(data: bytes) -> SimulatedDisk:
    disk = SimulatedDisk()
    put(disk, NAME, data)
    return disk


def log_of(*batches: list[bytes]) -> tuple[SimulatedDisk, list[Kept], list[int]]:
    """Return a disk, what it held after each batch, and where each ended."""
    disk = SimulatedDisk()
    storage, _ = reopen(disk, RESERVED)
    kept, ends = [Kept()], [len(content(disk).rstrip(b"\0"))]
    for batch in batches:
        first = len(kept[-1].entries) + 1
        readies = [ready(first + place, entry(2, data), state=(2, 8, 0)) for place, data in enumerate(batch)]
        storage.write(readies)
        kept.append(list(kept[-1].after(readies))[-1])
        # An end may end with zeros, which the rest of the file is made of too.
        last = content(disk).rfind(LogBatch(0).encode_frame()[:10])
        ends.append(last + BATCH_END_BYTES)
    return disk, kept, ends


def refused_or_whole(data: bytes, whole: Kept) -> bool:
    """Whether a log is refused; else all of it must be there."""
    refusal: LogDamagedError | None = None
    try:
        _, recovered = reopen(holding(data), RESERVED)
    except LogDamagedError as error:
        refusal = error
    else:
        assert kept_in(recovered) == whole
    if refusal is not None:
        assert refusal.path == f"simulated/{NAME}"
        assert 0 <= refusal.offset <= len(data)
        assert "join anew" in str(refusal)
    return refusal is not None


def torn(data: bytes, before: Kept, whole: Kept) -> Kept:
    """Return what is found of a torn log: the last batch up to an entry, and the same again after one more restart."""
    disk = holding(data)
    storage, recovered = reopen(disk, RESERVED)
    found = kept_in(recovered)
    assert found.entries[: len(before.entries)] == before.entries
    assert found.entries == whole.entries[: len(found.entries)]
    assert (found.term, found.vote) in {(before.term, before.vote), (whole.term, whole.vote)}
    last = len(found.entries)
    storage.write([ready(last + 1, entry(3, "on"), state=(3, 9, 0))])
    assert kept_in(reopen(copied(disk), RESERVED)[1]) == Kept(3, 9, SnapshotMeta(), (*found.entries, entry(3, "on")))
    return found


BATCHES = ([b"first"], [b"second", b"third" * 9], [b"fourth", b"", b"fifth" * 4])


def test_the_last_batch_is_cut_where_the_file_ends_within_it() -> None:
    disk, kept, ends = log_of(*BATCHES)
    data = content(disk)
    found = {torn(data[:size], kept[-2], kept[-1]) for size in range(ends[-2], ends[-1])}
    assert {len(one.entries) for one in found} == {3, 4, 5, 6}


def test_the_last_batch_is_cut_where_only_zeros_follow() -> None:
    disk, kept, ends = log_of(*BATCHES)
    data = content(disk)
    for size in range(ends[-2], ends[-1]):
        torn(data[:size] + bytes(len(data) - size), kept[-2], kept[-1])
        torn(data[:size] + bytes(ends[-1] - size), kept[-2], kept[-1])


def test_the_last_batch_is_cut_where_any_of_its_sectors_is_missing() -> None:
    disk, kept, ends = log_of([b"first"], [b"second" * 50, b"third" * 200, b"fourth", b"fifth" * 100, b"sixth" * 30])
    data = content(disk)
    first, last = ends[-2] // SECTOR_BYTES, (ends[-1] - 1) // SECTOR_BYTES
    assert last - first > 4
    for lost in product((False, True), repeat=last - first + 1):
        left = bytearray(data)
        for sector, gone in enumerate(lost, first):
            if gone:
                start = max(sector * SECTOR_BYTES, ends[-2])
                left[start : (sector + 1) * SECTOR_BYTES] = bytes((sector + 1) * SECTOR_BYTES - start)
        found = torn(bytes(left), kept[-2], kept[-1])
        assert (len(found.entries) == 6) >= (not any(lost))


def test_a_flipped_bit_is_refused_or_does_no_harm() -> None:
    disk, kept, ends = log_of(*BATCHES)
    data = content(disk)
    refused = 0
    for place in range(ends[-1] + 16):
        for bit in range(8):
            left = bytearray(data)
            left[place] ^= 1 << bit
            refused += refused_or_whole(bytes(left), kept[-1])
            # Where nothing was reserved, the file ends with its last batch.
            if ends[-2] <= place < ends[-1]:
                refused += refused_or_whole(bytes(left[: ends[-1]]), kept[-1])
    # Only the end of the last batch, which carries nothing, may be damaged and cut off.
    assert refused >= 8 * (ends[-1] - BATCH_END_BYTES) + 8 * (ends[-1] - BATCH_END_BYTES - ends[-2])


def test_a_flipped_bit_is_refused_also_in_a_batch_that_could_have_a_hole() -> None:
    disk, kept, _ = log_of([b"first"], [b"a" * 300, bytes(2 * SECTOR_BYTES), b"\1" + bytes(SECTOR_BYTES), b"b"])
    data = content(disk)
    for place in range(0, written(disk), 3):
        left = bytearray(data)
        left[place] ^= 1
        refused_or_whole(bytes(left), kept[-1])


def test_a_header_whose_length_and_checksum_are_missing_is_torn() -> None:
    # All zeros, they fit each other.
    for shift in range(6, 14):
        size = log_of([b""])[2][-1]
        disk, kept, ends = log_of([bytes([1]) * (2 * SECTOR_BYTES - shift - size)], [b"torn" * 300])
        assert (ends[-2] + shift) % SECTOR_BYTES == 0
        data = bytearray(content(disk))
        data[ends[-2] + shift : ends[-2] + shift + SECTOR_BYTES] = bytes(SECTOR_BYTES)
        found = torn(bytes(data), kept[-2], kept[-1])
        assert found.entries == kept[-2].entries


def test_a_hole_that_another_batch_follows_is_damage() -> None:
    disk, _, ends = log_of([b"first"], [b"hole" * 400], [b"last"])
    left = bytearray(content(disk))
    start = (ends[1] // SECTOR_BYTES + 1) * SECTOR_BYTES
    left[start : start + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    with pytest.raises(LogDamagedError, match="checksum") as refused:
        reopen(holding(bytes(left)), RESERVED)
    assert refused.value.offset == ends[1]


def test_a_hole_that_a_torn_batch_follows_is_damage() -> None:
    disk, _, ends = log_of([b"first"], [b"hole" * 400], [b"last"])
    left = bytearray(content(disk)[: ends[-1] - 30])
    start = (ends[1] // SECTOR_BYTES + 1) * SECTOR_BYTES
    left[start : start + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    with pytest.raises(LogDamagedError, match="checksum") as refused:
        reopen(holding(bytes(left)), RESERVED)
    assert refused.value.offset == ends[1]


def test_zeros_that_are_no_whole_sector_are_damage() -> None:
    disk, _, ends = log_of([b"first"], [b"second", b"third" * 400])
    data = content(disk)
    third = data.find(b"HCRA", data.find(b"second"))
    left = bytearray(data)
    stop = (third // SECTOR_BYTES + 1) * SECTOR_BYTES
    left[third:stop] = bytes(stop - third)
    with pytest.raises(LogDamagedError) as refused:
        reopen(holding(bytes(left)), RESERVED)
    assert refused.value.offset == third > ends[-2]


@pytest.mark.parametrize(
    "record",
    [
        AppendEntries(2, 0, 5, 2, 0, (entry(2, "a gap"),)),
        AppendEntries(2, 0, 2, 1, 0, (entry(2, "of another term"),)),
        AppendEntries(2, 0, 2, 2, 0, ()),
        LogState(1, 0, 0),
        LogSegment(0xC1, 7, 1, 2, 2),
        LogBatch(3),
    ],
    ids=["gap", "term", "empty", "state", "segment", "batch"],
)
def test_a_sound_record_that_does_not_fit_is_damage_and_never_torn(record: Record) -> None:
    assert_damage(record.encode_frame())


def test_a_sound_record_with_bytes_too_many_or_too_few_is_damage() -> None:
    assert_damage(frame(1, LogState.TYPE, LogState(2, 8, 0).encode_payload() + b"!"))
    assert_damage(frame(1, LogState.TYPE, LogState(2, 8, 0).encode_payload()[:-1]))


def assert_damage(record: bytes) -> None:
    """Check that a log is refused where a frame stands at its end."""
    disk, _, ends = log_of([b"first"], [b"second"])
    with pytest.raises(LogDamagedError) as refused:
        reopen(holding(content(disk)[: ends[-1]] + record), RESERVED)
    assert refused.value.offset == ends[-1]


def test_a_torn_head_without_the_segment_before_it_is_damage() -> None:
    disk = SimulatedDisk()
    put(disk, segment_name(2), content(log_of()[0])[:60])
    with pytest.raises(LogDamagedError, match="the log is missing"):
        reopen(disk)


def test_a_whole_batch_that_vanished_before_another_is_damage() -> None:
    disk, _, ends = log_of([b"first"], [b"gone"], [b"last"])
    left = bytearray(content(disk))
    left[ends[1] : ends[2]] = bytes(ends[2] - ends[1])
    with pytest.raises(LogDamagedError) as refused:
        reopen(holding(bytes(left)), RESERVED)
    assert refused.value.offset == ends[1]


def test_data_that_looks_like_the_end_of_a_batch_does_not_hide_a_torn_one() -> None:
    fake = LogBatch(0).encode_frame() + LogBatch(1 << 40).encode_frame()
    disk, kept, ends = log_of([b"first"], [b"x" * 600, fake * 50, b"last"])
    left = bytearray(content(disk))
    start = (ends[1] // SECTOR_BYTES + 1) * SECTOR_BYTES
    left[start : start + SECTOR_BYTES] = bytes(SECTOR_BYTES)
    torn(bytes(left), kept[-2], kept[-1])


def test_what_a_restart_found_is_never_taken_for_torn_again() -> None:
    disk, _, ends = log_of([b"first"], [b"second", b"third" * 200, b"last"])
    cut = ends[-2] + 700
    survivor = holding(content(disk)[:cut])
    _, recovered = reopen(survivor, RESERVED)
    found = kept_in(recovered)
    assert len(found.entries) == 2
    data = content(survivor)
    for place in range(ends[-2], written(survivor) - 2 * BATCH_END_BYTES):
        left = bytearray(data)
        left[place] ^= 0x10
        assert refused_or_whole(bytes(left), found)
    # Nor where all of a sector is gone.
    left = bytearray(data)
    left[ends[-2] : ends[-2] + 40] = bytes(40)
    assert refused_or_whole(bytes(left), found)


def test_what_a_restart_found_of_a_batch_that_could_have_a_hole_is_not_taken_for_torn_either() -> None:
    disk, _, ends = log_of([b"first"], [bytes(3 * SECTOR_BYTES), b"torn" * 100, b"last"])
    survivor = holding(content(disk)[: ends[-1] - 100])
    _, recovered = reopen(survivor, RESERVED)
    found = kept_in(recovered)
    assert len(found.entries) == 3
    data = content(survivor)
    for place in range(ends[-2], ends[-2] + 3 * SECTOR_BYTES):
        left = bytearray(data)
        left[place] ^= 0x10
        assert refused_or_whole(bytes(left), found)


def test_what_a_restart_cut_off_does_not_come_back() -> None:
    for last in (b"torn" * 1000, b"torn" * 200):
        disk, kept, ends = log_of([b"first"], [b"second", last, b"last" * 300])
        cut = content(disk)[: ends[-1] - 400]
        for operation, seed in product(range(1, 10), range(30)):
            survivor = holding(cut)
            survivor.points.strike(operation)
            with suppress(SimulatedCrash):
                reopen(survivor, RESERVED)
            survivor.points.spare()
            survivor = survivor.crash(Random(seed), keep=1.0)
            torn(content(survivor), kept[-2], kept[-1])


@pytest.mark.parametrize("extra", [b"\0", b"x", LogBatch(0).encode_frame()], ids=["zero", "byte", "record"])
def test_what_follows_a_whole_segment_is_damage(extra: bytes) -> None:
    disk = SimulatedDisk()
    storage, _ = reopen(disk, 512)
    for index in range(1, 20):
        storage.write([ready(index, entry(1, f"{index}"), state=(1, 7, 0))])
    survivor = copied(disk)
    put(survivor, NAME, content(disk) + extra)
    with pytest.raises(LogDamagedError) as refused:
        reopen(survivor, 512)
    assert (refused.value.path, refused.value.offset) == (f"simulated/{NAME}", len(content(disk)))


def test_a_whole_segment_that_is_cut_short_is_damage() -> None:
    disk = SimulatedDisk()
    storage, _ = reopen(disk, 512)
    for index in range(1, 20):
        storage.write([ready(index, entry(1, f"{index}"), state=(1, 7, 0))])
    for size in range(len(content(disk))):
        survivor = copied(disk)
        put(survivor, NAME, content(disk)[:size])
        with pytest.raises(LogDamagedError, match="log-"):
            reopen(survivor, 512)


def test_every_bit_of_a_snapshot_counts() -> None:
    disk = SimulatedDisk()
    storage, _ = reopen(disk)
    storage.write([ready(1, entry(1, "a"), state=(1, 7, 0))])
    storage.save_snapshot(SnapshotMeta(1, 1, MEMBERS), [b"state"])
    name = "snapshot-1-1.hc"
    for place, bit in product(range(disk.size(name)), range(8)):
        survivor = copied(disk)
        survivor.damage(name, place, 1 << bit)
        with pytest.raises(LogDamagedError, match=name):
            list(reopen(survivor)[0].load_snapshot())
