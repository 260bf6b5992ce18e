from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercache.replication import stamps
from hypercache.wire import Extension
from hypercache.wire.extension import decode_extended, encode_extension
from hypercache.wire.messages import ReplicateData

U64 = st.integers(0, (1 << 64) - 1)


@given(st.integers(0, (1 << 48) - 1), st.integers(0, 65_535), U64)
def test_a_stamp_is_48_bits_of_milliseconds_16_of_counter_and_the_origin(now_ms: int, counter: int, origin: int) -> None:
    stamp = stamps.make_stamp(now_ms, origin, counter)
    assert stamps.milliseconds_of(stamp) == now_ms
    assert stamps.hlc_of(stamp) == now_ms << 16 | counter
    assert stamps.origin_of(stamp) == origin


@given(U64, U64, U64, U64)
def test_stamps_are_ordered_by_clock_then_by_origin(hlc: int, origin: int, other_hlc: int, other_origin: int) -> None:
    one, other = hlc << 64 | origin, other_hlc << 64 | other_origin
    assert (one < other) == ((hlc, origin) < (other_hlc, other_origin))


def test_the_counters_overflow_carries_into_the_milliseconds() -> None:
    last = stamps.make_stamp(1000, 5, 65_535)
    assert last + (1 << 64) == stamps.make_stamp(1001, 5, 0)


def test_a_stamp_is_refused_only_beyond_the_allowed_skew() -> None:
    stamp = stamps.make_stamp(61_000, 5)
    assert not stamps.is_too_far_ahead(stamp, 1_000, 60_000)
    assert stamps.is_too_far_ahead(stamp, 999, 60_000)


@given(st.integers(1, (1 << 128) - 1))
def test_a_stamp_travels_whole(stamp: int) -> None:
    message = ReplicateData(1, 0, "", b"k", b"v")
    payload = encode_extension(Extension(stamp=stamp), message.encode_payload())
    extension, body = decode_extended(payload, len(payload))
    assert extension.stamp == stamp
    assert body == message.encode_payload()
