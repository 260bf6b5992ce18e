"""Receiving (wire.md, section 2): the same events however the bytes are cut, bounded work, no exception ever."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.limits import HEADER_BYTES
from hypercache.wire import Decoder, Extension, encode_extended
from hypercache.wire.events import BadChecksum, BadVersion, Broken, Extended, Garbage, Malformed, TooLarge, UnknownType
from hypercache.wire.header import HEADER, MAGIC_NUMBER, frame
from hypercache.wire.inspector import Inspection
from hypercache.wire.messages import Heartbeat, KeepAlive, ReplicateData, VoteRequest

if TYPE_CHECKING:
    from hypercache.wire.events import Event

BEAT = Heartbeat(1, 2, 3)
GOOD = BEAT.encode_frame()
BAD = GOOD[:-1] + b"\1"


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)] if sizes else len(data)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def decoded(pieces: list[bytes], **options: int) -> list[Event]:
    decoder = Decoder(**options)  # type: ignore[arg-type]
    return [event for piece in pieces for event in decoder.feed(piece)]


element = st.one_of(
    st.just(GOOD),
    st.just(BAD),
    st.binary(max_size=40),
    st.just(b"HCR"),
    st.just(b"HCRA"),
    st.builds(
        lambda key, value: ReplicateData(1, 0, "", key, value).encode_frame(), st.binary(max_size=20), st.binary(max_size=60)
    ),
    st.builds(lambda version: frame(version, 0x32, GOOD[14:]), st.integers(0, 255)),
    st.builds(lambda number: frame(1, number, b"abc"), st.integers(0, 255)),
    st.builds(lambda size: GOOD[:size], st.integers(0, len(GOOD))),
    st.just(struct.pack(">IBBII", MAGIC_NUMBER, 1, 0x32, 1 << 31, 0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(element, max_size=25).map(b"".join), st.lists(st.integers(1, 60), max_size=8))
def test_any_chunking_gives_the_same_events(data: bytes, sizes: list[int]) -> None:
    assert decoded(cut(data, sizes)) == decoded([data])
    assert decoded(cut(data, [1])) == decoded([data])


@settings(max_examples=100, deadline=None)
@given(st.lists(element, max_size=15).map(b"".join), st.lists(st.integers(1, 60), max_size=8))
def test_inspection_covers_every_byte_in_order_however_the_input_is_cut(data: bytes, sizes: list[int]) -> None:
    rows = list(Inspection([data]).rows())
    assert rows == list(Inspection(cut(data, sizes)).rows())
    assert [row["offset"] for row in rows] == sorted(row["offset"] for row in rows)
    assert sum(row.get("garbage", 0) for row in rows) <= len(data)


def test_a_million_random_and_mutated_bytes_never_raise() -> None:
    rng = random.Random(7)
    left = 1_000_000
    while left > 0:
        decoder = Decoder()
        decoder.extended = rng.random() < 0.5
        data = bytearray(b"".join(rng.choice((GOOD, BAD, rng.randbytes(50), GOOD[:9])) for _ in range(60)))
        if decoder.extended:
            data += encode_extended(BEAT, Extension(exchange=1, stamp=1 << 70 | 5)) * 5
        for _ in range(rng.randrange(20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for piece in cut(bytes(data), [rng.randrange(1, 400)]):
            decoder.feed(piece)
        left -= len(data)


def test_garbage_is_skipped_and_reported_once_per_run() -> None:
    assert decoded([b"x" * 1024 + GOOD]) == [Garbage(1024), BEAT]
    assert decoded([b"HCR" + GOOD]) == [Garbage(3), BEAT]


def test_a_checksum_mismatch_is_reported_and_the_search_goes_on_behind_its_magic() -> None:
    hidden = HEADER.pack(MAGIC_NUMBER, 1, 0x20, len(GOOD) + 4, 1) + b"abcd" + GOOD
    events = decoded([hidden])
    assert isinstance(events[0], BadChecksum)
    assert events[0].computed == crc32(b"abcd" + GOOD)
    assert events[-1] == BEAT


def test_a_length_over_the_limit_is_refused_before_anything_is_buffered() -> None:
    decoder = Decoder()
    (event,) = decoder.feed(HEADER.pack(MAGIC_NUMBER, 1, 0x32, 64 * 1024 + 1, 0))
    assert event == TooLarge(0x32, 64 * 1024 + 1, 64 * 1024)
    assert decoder.pending_bytes < 14
    assert decoder.feed(GOOD)[-1] == BEAT


def test_only_the_types_that_may_be_long_are_and_only_once_authenticated() -> None:
    header = HEADER.pack(MAGIC_NUMBER, 1, 0x20, 65 * 1024, 0)
    assert Decoder().feed(header) == []
    assert isinstance(Decoder(authenticated=False).feed(header)[0], TooLarge)


def test_an_unknown_version_with_a_sound_frame_is_skipped() -> None:
    for version in (0, 2, 7):
        assert decoded([frame(version, 0x32, GOOD[14:]) + GOOD]) == [BadVersion(version, 0x32), BEAT]


def test_an_unknown_type_is_reported_with_its_payload() -> None:
    assert decoded([frame(1, 0x99, b"abc") + GOOD]) == [UnknownType(0x99, b"abc", 1), BEAT]


def test_a_malformed_payload_ends_the_stream() -> None:
    events = decoded([GOOD + frame(1, 0x10, b"short") + GOOD])
    assert events[0] == BEAT
    assert isinstance(events[1], Malformed)
    assert isinstance(events[2], Broken)
    assert len(events) == 3


def test_bytes_that_trail_a_payload_are_ignored() -> None:
    assert decoded([frame(1, 0x32, GOOD[14:] + b"more")]) == [BEAT]


def test_a_keep_alive_is_a_message() -> None:
    assert decoded([frame(1, 0, b"")]) == [KeepAlive()]


def test_too_much_garbage_ends_the_stream_at_the_byte_that_exceeds() -> None:
    assert decoded([b"x" * 100, GOOD], resync_bytes_max=100) == [Garbage(100), BEAT]
    events = decoded([b"x" * 101 + GOOD], resync_bytes_max=100)
    assert len(events) == 1
    assert isinstance(events[0], Broken)


def test_too_many_errors_end_the_stream_and_a_sound_frame_starts_the_count_anew() -> None:
    wrong = frame(9, 0x32, b"")
    assert decoded([(wrong * 16 + GOOD) * 3], errors_max=16).count(BEAT) == 3
    events = decoded([wrong * 17 + GOOD], errors_max=16)
    assert isinstance(events[-1], Broken)
    assert BEAT not in events


def test_after_hello_any_garbage_or_mismatch_ends_the_link() -> None:
    for data in (b"x" + GOOD, BAD + GOOD):
        decoder = Decoder()
        decoder.strict = True
        events = decoder.feed(data)
        assert isinstance(events[-1], Broken)
        assert BEAT not in events


def test_a_large_frame_that_comes_byte_by_byte_is_not_copied_again_and_again() -> None:
    message = ReplicateData(1, 0, "", b"k", bytes(300_000))
    assert decoded(cut(message.encode_frame(), [1])) == [message]


def test_false_magics_cost_bounded_work() -> None:
    decoder = Decoder(max_frame=1 << 16, resync_bytes_max=1 << 24)
    lie = HEADER.pack(MAGIC_NUMBER, 1, 0x20, 60_000, 0)
    events = decoder.feed(lie * 20_000)
    assert isinstance(events[-1], Broken)


def test_an_extended_frame_carries_its_extension() -> None:
    decoder = Decoder()
    decoder.extended = True
    extension = Extension(exchange=9, reply=True, stamp=123 << 64 | 4)
    sent = encode_extended(VoteRequest(1, 2, 3, 4), extension)
    assert decoder.feed(sent) == [Extended(VoteRequest(1, 2, 3, 4), extension, len(sent) - HEADER_BYTES)]
