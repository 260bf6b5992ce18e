"""The compression layer (wire.md, section 3): what it saves, and what it refuses."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from typing import Any

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from hypercache.errors import MalformedMessageError
from hypercache.interfaces import IFrameLayer, IFrameLayerFactory
from hypercache.layers.compression import CompressionFactory
from hypercache.layers.signing import SigningFactory
from hypercache.limits import INFLATED_BATCH_BYTES, KIB, MIB, SMALL_FRAME_BYTES
from hypercache.wire import Capability, Extension, More
from hypercache.wire.compression import Codec, Inflater, compress, decompress
from hypercache.wire.extension import COMPRESSED, Part, Trace, decode_extended, encode_extension
from tests.layers.stacks import End, pair
from tests.wire.extensions import extensions

CODECS = list(Codec)
TEXT = b"".join(b'{"id": %d, "name": "user-%d", "active": true}, ' % (number, number * 7919 % 1000) for number in range(2000))
REPLICATE = 0x20
HEARTBEAT = 0x32


def unsigned_pair(codec: Codec = Codec.ZSTD, **options: Any) -> tuple[End, End]:
    return pair(CompressionFactory(codec, **options), keys=None)


def compressed(codec: int, raw_length: int, data: bytes, message_type: int = REPLICATE) -> tuple[int, bytes]:
    """Return a frame that says of itself what it likes."""
    return message_type, bytes((COMPRESSED,)) + struct.pack(">BI", codec, raw_length) + data


def test_the_layer_and_its_factory_are_what_their_interfaces_say() -> None:
    factory = CompressionFactory(Codec.LZ4)
    verifyObject(IFrameLayerFactory, factory)
    layer = factory.layer(End([]).view)
    assert layer is not None
    layer.above = layer.below = None
    verifyObject(IFrameLayer, layer)


@pytest.mark.parametrize("codec", CODECS)
def test_the_field_is_where_the_specification_has_it(codec: Codec) -> None:
    dialler, listener = unsigned_pair(codec)
    head = bytes.fromhex(
        "9d"  # CORRELATED, STREAM, STAMPED, TRACED, MORE
        "00000007"  # exchange
        "0003"  # stream
        "00000000000000110000000000000022"  # stamp
        + "aa" * 16
        + "bb" * 16
        + "00000000000000cc"
        + "02"  # two hops
        + "00000000000000010000000000000002"
    )
    more = bytes.fromhex("0a 04 08 0000000000000009")
    ((_, payload),) = dialler.send((REPLICATE, head + more + TEXT))
    flags = bytes((head[0] | 1 << 5,))
    field = bytes((codec,)) + len(TEXT).to_bytes(4, "big")
    assert payload.startswith(flags + head[1:] + field + more)
    data = payload[len(head + field + more) :]
    assert (zstandard.decompress if codec is Codec.ZSTD else lz4.frame.decompress)(data) == TEXT
    listener.hear([(REPLICATE, payload)])
    assert listener.came == [(REPLICATE, head + more + TEXT)]


@given(
    codec=st.sampled_from(CODECS),
    extension=extensions,
    body=st.binary(max_size=40) | st.integers(1, 20).map(lambda count: TEXT[: count * 1000]),
)
def test_every_extension_survives_compression_and_signing(codec: Codec, extension: Extension, body: bytes) -> None:
    dialler, listener = pair(SigningFactory(), CompressionFactory(codec, threshold=64))
    payload = encode_extension(extension, body)
    ((_, sent),) = dialler.send((REPLICATE, payload))
    assert bool(sent[0] & COMPRESSED) == (len(body) > 64)
    listener.hear([(REPLICATE, sent)])
    assert listener.came == [(REPLICATE, payload)]
    assert decode_extended(listener.came[0][1], 1 * MIB) == (extension, body)
    # What a capture shows of the same frame, unsigned and inflated by the decoder.
    ((_, captured),) = End([CompressionFactory(codec, threshold=64)], keys=None).send((REPLICATE, payload))
    shown, inflated = decode_extended(captured, 1 * MIB)
    assert inflated == body
    assert shown.exchange == extension.exchange and shown.more == extension.more and shown.trace == extension.trace


@given(
    st.lists(st.tuples(st.sampled_from([0x20, 0x32, 0x50, 0xFF]), extensions, st.integers(0, 3000)), max_size=8),
    st.integers(1, 5000),
)
def test_runs_of_long_and_short_frames_come_back_in_order(rows: list[tuple[int, Extension, int]], chunk: int) -> None:
    dialler, listener = pair(SigningFactory(), CompressionFactory(Codec.LZ4))
    frames = [(message_type, encode_extension(extension, TEXT[:size])) for message_type, extension, size in rows]
    dialler.send(*frames)
    listener.hear(dialler.written, chunk)
    assert listener.came == frames


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("other", CODECS)
def test_each_side_may_send_with_a_codec_of_its_own(codec: Codec, other: Codec) -> None:
    dialler = End([CompressionFactory(codec)], keys=None)
    listener = End([CompressionFactory(other)], keys=None, dialled=False)
    listener.hear(dialler.send((REPLICATE, b"\0" + TEXT)))
    dialler.hear(listener.send((REPLICATE, b"\0" + TEXT)))
    assert dialler.came == listener.came == [(REPLICATE, b"\0" + TEXT)]
    assert dialler.written[0][1][1] == codec
    assert listener.written[0][1][1] == other


def test_the_senders_own_list_stays_as_it_is() -> None:
    dialler, _ = unsigned_pair()
    frames = [(REPLICATE, b"\0" + TEXT)]
    dialler.stack.send(frames)
    assert frames == [(REPLICATE, b"\0" + TEXT)]
    assert dialler.written != frames


@pytest.mark.parametrize("codec", CODECS)
def test_json_becomes_a_third_or_less(codec: Codec) -> None:
    dialler, _ = unsigned_pair(codec)
    ((_, payload),) = dialler.send((REPLICATE, b"\0" + TEXT[: 64 * KIB]))
    assert len(payload) * 3 <= 64 * KIB


def test_a_body_is_compressed_only_where_it_exceeds_the_threshold_and_shrinks() -> None:
    dialler, _ = unsigned_pair(threshold=1024)
    head = encode_extension(Extension(exchange=1, stamp=5), b"")
    short, long = (REPLICATE, head + TEXT[:1024]), (REPLICATE, head + TEXT[:1025])
    noise = (REPLICATE, head + random.Random(1).randbytes(5000))
    already = (REPLICATE, encode_extension(Extension(codec=Codec.LZ4), TEXT))
    written = dialler.send(short, long, noise, already)
    assert [written[0], written[2], written[3]] == [short, noise, already]
    assert len(written[1][1]) < 1025


def test_what_the_peer_would_refuse_as_a_bomb_is_sent_as_it_is() -> None:
    dialler, listener = unsigned_pair(ratio_max=200)
    frames = [(REPLICATE, b"\0" + bytes(MIB)), (REPLICATE, b"\0" + TEXT)]
    written = dialler.send(*frames)
    assert written[0] == frames[0]
    assert written[1] != frames[1]
    listener.hear(written)
    assert listener.came == frames


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("raw_length", [0xFFFFFFFF, 50 * MIB, 16 * MIB + 1])
def test_a_body_that_says_it_exceeds_the_frame_limit_is_refused_before_it_inflates(codec: Codec, raw_length: int) -> None:
    _, listener = unsigned_pair(codec, ratio_max=1 << 40)
    listener = End([CompressionFactory(codec, ratio_max=1 << 40)], keys=None, dialled=False, max_frame=16 * MIB)
    bomb = compress(codec, bytes(50 * MIB))
    tracemalloc.start()
    with pytest.raises(MalformedMessageError, match="exceeds the limit"):
        listener.hear([compressed(codec, raw_length, bomb)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MIB
    assert listener.came == []


def test_the_limit_is_that_of_the_type() -> None:
    _, listener = unsigned_pair()
    body = TEXT[: SMALL_FRAME_BYTES + 1]
    listener.hear([compressed(Codec.ZSTD, len(body), compress(Codec.ZSTD, body), REPLICATE)])
    with pytest.raises(MalformedMessageError, match="exceeds the limit of 65536"):
        listener.hear([compressed(Codec.ZSTD, len(body), compress(Codec.ZSTD, body), HEARTBEAT)])
    assert listener.came == [(REPLICATE, b"\0" + body)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("claimed", [100, 8 * MIB - 1, 8 * MIB + 1, 12 * MIB])
def test_a_bomb_that_lies_about_its_size_is_refused_and_bounded_by_what_it_said(codec: Codec, claimed: int) -> None:
    _, listener = unsigned_pair(codec, ratio_max=1 << 40)
    bomb = compress(codec, bytes(8 * MIB))
    tracemalloc.start()
    with pytest.raises(MalformedMessageError, match="compressed body"):
        listener.hear([compressed(codec, claimed, bomb)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * claimed + MIB
    assert listener.came == []


@pytest.mark.parametrize("codec", CODECS)
def test_the_ratio_is_bounded(codec: Codec) -> None:
    bomb = compress(codec, bytes(MIB))
    frame = compressed(codec, MIB, bomb)
    ratio = MIB / len(bomb)
    _, listener = unsigned_pair(codec, ratio_max=int(ratio) + 1)
    listener.hear([frame])
    _, listener = unsigned_pair(codec, ratio_max=int(ratio))
    with pytest.raises(MalformedMessageError, match="ratio"):
        listener.hear([frame])


@pytest.mark.parametrize("codec", CODECS)
def test_a_body_is_one_whole_frame_of_its_codec_and_nothing_else(codec: Codec) -> None:
    body = TEXT[:3000]
    good = compress(codec, body)
    other = compress(Codec(3 - codec), body)
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    for bad in (good + b"x", good[:-1], good + good, good + skippable, skippable + good, skippable, other, b"", b"garbage"):
        _, listener = unsigned_pair(codec)
        with pytest.raises(MalformedMessageError):
            listener.hear([compressed(codec, 3000, bad)])
        assert listener.came == []
    for number in (0, 3, 255):
        _, listener = unsigned_pair(codec)
        with pytest.raises(MalformedMessageError, match="unknown compression codec"):
            listener.hear([compressed(number, 3000, good)])


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_does_not_compress(codec: Codec) -> None:
    _, listener = unsigned_pair(codec)
    for data in (b"", compress(codec, b""), compress(codec, b"") + b"junk"):
        with pytest.raises(MalformedMessageError, match="no bytes"):
            listener.hear([compressed(codec, 0, data)])


def test_a_zstd_frame_may_leave_its_size_out_but_not_ask_for_much_memory() -> None:
    _, listener = unsigned_pair()
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    listener.hear([compressed(Codec.ZSTD, len(TEXT), silent)])
    assert listener.came == [(REPLICATE, b"\0" + TEXT)]
    for claimed in (len(TEXT) - 1, len(TEXT) + 1):
        with pytest.raises(MalformedMessageError):
            decompress(Codec.ZSTD, silent, claimed)
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    greedy = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(MalformedMessageError, match="memory"):
        decompress(Codec.ZSTD, greedy, len(TEXT))


@pytest.mark.parametrize("codec", CODECS)
def test_an_inflater_works_on_after_a_fault(codec: Codec) -> None:
    inflater = Inflater()
    good = compress(codec, TEXT)
    for bad in (good[:-3], good[:10], b"\0" * 50, good + good):
        with pytest.raises(MalformedMessageError):
            inflater.inflate(codec, bad, len(TEXT))
        assert inflater.inflate(codec, good, len(TEXT)) == TEXT


@pytest.mark.parametrize("codec", CODECS)
def test_the_frames_before_a_bad_one_have_been_handed_up(codec: Codec) -> None:
    dialler, listener = unsigned_pair(codec)
    frames = [(HEARTBEAT, b"\0short"), (REPLICATE, b"\0" + TEXT), (REPLICATE, b"\1\0\0\0\1" + TEXT[:2000])]
    written = dialler.send(*frames)
    with pytest.raises(MalformedMessageError):
        listener.hear([*written, compressed(codec, 100, b"bad"), *written])
    assert listener.came == frames


def test_what_inflates_to_much_is_handed_up_in_pieces() -> None:
    dialler, listener = unsigned_pair()
    large = TEXT * (INFLATED_BATCH_BYTES // 2 // len(TEXT))
    frames = [(REPLICATE, b"\0" + large + bytes((number,))) for number in range(20)]
    written = dialler.send(*frames)
    sizes: list[int] = []
    listener.on_came = lambda batch: sizes.append(sum(len(payload) for _, payload in batch))
    listener.hear(written)
    assert listener.came == frames
    assert max(sizes) <= INFLATED_BATCH_BYTES + len(large)
    # A fault behind the first pieces takes nothing away from them, and hands nothing up twice.
    _, listener = unsigned_pair()
    with pytest.raises(MalformedMessageError):
        listener.hear([*written, compressed(Codec.ZSTD, 100, b"bad")])
    assert listener.came == frames


def test_an_error_from_above_is_no_reason_to_hand_up_again() -> None:
    dialler, listener = unsigned_pair()
    frames = [(REPLICATE, b"\0" + TEXT * 30), (REPLICATE, b"\0" + TEXT)]

    def fault(batch: list[Any]) -> None:
        raise MalformedMessageError("from above")

    listener.on_came = fault
    with pytest.raises(MalformedMessageError, match="from above"):
        listener.hear(dialler.send(*frames))
    assert listener.came == frames[:1]


@given(st.binary(min_size=0, max_size=80), st.integers(0, 255), st.sampled_from(CODECS))
def test_any_payload_comes_up_inflated_or_is_malformed(payload: bytes, message_type: int, codec: Codec) -> None:
    _, listener = unsigned_pair(codec)
    with contextlib.suppress(MalformedMessageError):
        listener.hear([(message_type, payload), (message_type, bytes((0x20,)) + payload)])
    assert all(not payload or not payload[0] & COMPRESSED for _, payload in listener.came)


def test_an_extension_that_is_cut_off_is_refused() -> None:
    extension = Extension(
        exchange=7,
        stream=3,
        stamp=5,
        trace=Trace(bytes(16), bytes(16), 1, (1, 2, 3)),
        codec=Codec.ZSTD,
        more=More(view=1, part=Part(1, 2, 3)),
    )
    whole = encode_extension(extension, TEXT[:2000])
    for size in range(1, 150):
        _, listener = unsigned_pair()
        with pytest.raises(MalformedMessageError):
            listener.hear([(REPLICATE, whole[:size])])
        assert listener.came == []


def test_a_signed_frame_is_refused_where_there_are_no_keys() -> None:
    _, listener = unsigned_pair()
    good = compress(Codec.ZSTD, TEXT)
    payload = bytes((0x60,)) + struct.pack(">BI", Codec.ZSTD, len(TEXT)) + good + bytes(16)
    with pytest.raises(MalformedMessageError, match="no keys"):
        listener.hear([(REPLICATE, payload)])


def test_there_is_a_layer_only_where_both_sides_have_it() -> None:
    factory = CompressionFactory(Codec.ZSTD)
    assert factory.layer(End([], capabilities=int(Capability.SIGNING)).view) is None
    assert factory.layer(End([], extended=False).view) is None
    assert factory.capability == Capability.COMPRESSION
    assert not factory.base_peers
