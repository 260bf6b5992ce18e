"""Version 0x02 frames (wire.md, section 3), varints, signatures, compression, captures."""

from __future__ import annotations

import contextlib
import io
import struct

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from hypercache.errors import MalformedMessageError, SignatureError
from hypercache.wire import Decoder, Extension, More, encode_extended
from hypercache.wire.capture import streams_of
from hypercache.wire.compression import Codec, compress, decompress
from hypercache.wire.events import Extended
from hypercache.wire.extension import Trace, TraceLoopError, decode_extended, encode_extension
from hypercache.wire.header import HEADER, frame
from hypercache.wire.jsonform import fields_of, message_of
from hypercache.wire.leb128 import decode_leb128, encode_leb128
from hypercache.wire.messages import GenericError, Heartbeat, VoteRequest
from hypercache.wire.signing import DIALLER, LISTENER, derive_keys, proof, secure_checksum, sign, verify, verify_proof
from tests.wire.extensions import extensions, u64


@given(extensions, st.binary(max_size=50))
def test_every_extension_comes_back(extension: Extension, body: bytes) -> None:
    assert decode_extended(encode_extension(extension, body), 1 << 20) == (extension, body)


@given(st.binary(max_size=200))
def test_any_payload_decodes_or_is_malformed(payload: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        decode_extended(payload, 1 << 16)


def test_a_trace_of_17_hops_or_one_that_passed_a_node_twice_is_a_loop() -> None:
    for path in (tuple(range(17)), (1, 2, 1)):
        payload = encode_extension(Extension(trace=Trace(bytes(16), bytes(16), 0, path)), b"")
        with pytest.raises(TraceLoopError):
            decode_extended(payload, 1000)


def test_tags_must_ascend_and_unknown_ones_are_skipped() -> None:
    def more(fields: bytes) -> bytes:
        return b"\x80" + encode_leb128(len(fields)) + fields

    view = b"\4\10" + bytes(7) + b"\1"
    extension, _ = decode_extended(more(view + b"\x63\2zz"), 1000)
    assert extension.more == More(view=1)
    for fields in (view + view, b"\5\20" + bytes(16) + view, b"\4\1a", b"\4"):
        with pytest.raises(MalformedMessageError):
            decode_extended(more(fields), 1000)


@pytest.mark.parametrize("codec", list(Codec))
def test_a_body_is_compressed_only_where_it_is_long_and_shrinks(codec: Codec) -> None:
    long = GenericError(1, 0, "a" * 5000)
    assert len(encode_extended(long, Extension(codec=codec))) < 1000
    extension, body = decode_extended(encode_extended(long, Extension(codec=codec))[14:], 1 << 20)
    assert extension.codec is codec
    assert GenericError.decode_payload(body) == long
    short = encode_extended(GenericError(1, 0, "a" * 100), Extension(codec=codec))
    assert decode_extended(short[14:], 1 << 20)[0].codec is None


@pytest.mark.parametrize("codec", list(Codec))
def test_a_compression_bomb_is_refused_before_it_inflates(codec: Codec) -> None:
    bomb = compress(codec, bytes(50_000_000))
    for claimed in (100, 49_999_999, 50_000_001):
        with pytest.raises(MalformedMessageError):
            decompress(codec, bomb, claimed)
    with pytest.raises(MalformedMessageError):
        decode_extended(b"\x20" + struct.pack(">BI", codec, 50_000_000) + bomb, 1 << 20)


@pytest.mark.parametrize("codec", list(Codec))
def test_a_compressed_body_is_exactly_one_frame(codec: Codec) -> None:
    good = compress(codec, b"a" * 3000)
    assert decompress(codec, good, 3000) == b"a" * 3000
    for bad in (good + b"x", good[:-1], good + good, b"", b"garbage"):
        with pytest.raises(MalformedMessageError):
            decompress(codec, bad, 3000)


def test_a_zstd_frame_that_does_not_say_its_size_is_bounded_too() -> None:
    data = zstandard.ZstdCompressor(write_content_size=False).compress(b"a" * 3000)
    assert decompress(Codec.ZSTD, data, 3000) == b"a" * 3000
    with pytest.raises(MalformedMessageError):
        decompress(Codec.ZSTD, data, 2999)
    assert decompress(Codec.LZ4, lz4.frame.compress(b"a" * 3000, store_size=False), 3000) == b"a" * 3000


def test_signatures_cover_sequence_header_and_payload() -> None:
    keys = derive_keys(b"k" * 32, b"d" * 32, b"l" * 32, b"hello", b"reply")
    assert len({keys.dialler, keys.listener, keys.auth}) == 3
    unsigned = encode_extension(Extension(signed=True), Heartbeat(1, 2, 3).encode_payload())
    signed = sign(keys.dialler, 5, 0x32, unsigned)
    verify(keys.dialler, 5, signed)
    extension, body = decode_extended(signed[14:], 1000)
    assert extension.signed
    assert Heartbeat.decode_payload(body) == Heartbeat(1, 2, 3)
    altered = signed[:5] + b"\x31" + signed[6:]
    for key, sequence, data in ((keys.dialler, 6, signed), (keys.listener, 5, signed), (keys.dialler, 5, altered)):
        with pytest.raises(SignatureError):
            verify(key, sequence, data)


def test_a_proof_belongs_to_its_role_both_hellos_and_the_tls_session() -> None:
    keys = derive_keys(b"k" * 32, b"d" * 32, b"l" * 32, b"hello", b"reply")
    given_proof = proof(keys, DIALLER, b"t" * 32)
    assert verify_proof(keys, DIALLER, given_proof, b"t" * 32)
    assert not verify_proof(keys, LISTENER, given_proof, b"t" * 32)
    assert not verify_proof(keys, DIALLER, given_proof)
    stripped = derive_keys(b"k" * 32, b"d" * 32, b"l" * 32, b"hullo", b"reply")
    assert not verify_proof(stripped, DIALLER, given_proof, b"t" * 32)
    assert len(secure_checksum(b"payload", b"key")) == 8


@given(u64)
def test_varints_come_back_and_are_canonical(number: int) -> None:
    encoded = encode_leb128(number)
    assert decode_leb128(encoded) == (number, len(encoded))
    with pytest.raises(MalformedMessageError):
        decode_leb128(encoded[:-1] + bytes([encoded[-1] | 0x80, 0]))


def test_varints_of_more_than_64_bits_are_refused() -> None:
    for data in (b"\xff" * 10, b"\xff" * 9 + b"\2", b"\x80" * 11, b"", b"\x80"):
        with pytest.raises(MalformedMessageError):
            decode_leb128(data)
    with pytest.raises(ValueError, match="64 bits"):
        encode_leb128(1 << 64)


def packet(sequence: int, payload: bytes, flags: int = 0x10) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", 1000, 7379, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 0, 0, 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1") + tcp
    data = bytes(12) + b"\x08\0" + ip
    return struct.pack("<IIII", 0, 0, len(data), len(data)) + data


def test_a_capture_is_put_in_order() -> None:
    frame = Heartbeat(1, 2, 3).encode_frame()
    start = (1 << 32) - 10
    packets = [
        packet(start - 1, b"", 0x02),
        packet(start + 20, frame[20:]),
        packet(start, frame[:20]),
        packet(start, frame[:20]),
    ]
    file = io.BytesIO(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(packets))
    assert streams_of(file) == {("127.0.0.1:1000", "127.0.0.1:7379"): frame}
    assert HEADER.unpack_from(frame)[2] == 0x32
    with pytest.raises(MalformedMessageError):
        streams_of(io.BytesIO(b"no capture"))


def test_the_transfer_flag_of_a_vote_request_travels_in_version_2_alone() -> None:
    vote = VoteRequest(5, 1, 9, 4, transfer=True)
    assert vote.encode_payload() == VoteRequest(5, 1, 9, 4).encode_payload()
    decoder = Decoder()
    assert decoder.feed(vote.encode_frame()) == [VoteRequest(5, 1, 9, 4)]
    assert decoder.feed(frame(1, 0x10, vote.encode_payload() + b"\1")) == [VoteRequest(5, 1, 9, 4)]
    decoder.extended = True
    for sent in (vote, VoteRequest(5, 1, 9, 4)):
        (event,) = decoder.feed(encode_extended(sent))
        assert isinstance(event, Extended)
        assert (event.message, event.extension) == (sent, Extension())
        assert message_of(VoteRequest, fields_of(sent)) == sent
    assert encode_extended(vote)[-1] == 1
    assert len(encode_extended(vote)) == len(frame(2, 0x10, b"\0" + vote.encode_payload())) + 1
