"""The signing layer (wire.md, section 3), and an attacker between two of them."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from hypercache.errors import AuthenticationError, SignatureError
from hypercache.interfaces import IFrameLayer, IFrameLayerFactory
from hypercache.layers.signing import SigningFactory
from hypercache.wire.header import EXTENDED_VERSION, frame
from hypercache.wire.signing import sign, verify
from tests.layers.stacks import KEYS, End, pair

Frame = tuple[int, bytes]
bodies = st.binary(min_size=1, max_size=60) | st.integers(8150, 8200).map(lambda size: (bytes(range(1, 101)) * 82)[:size])
frames_strategy = st.lists(st.tuples(st.integers(0, 255), bodies), max_size=12)
LARGE = (0x20, b"\0" + bytes(range(256)) * 64)
FRAMES: list[Frame] = [(0x32, b"\1abcdefg"), (0x20, b"\0"), LARGE, (0x20, b"\0"), (0xFF, b"\x81more")]


def heard(sent: list[Frame], altered: list[Frame], listener: End) -> None:
    """Hold that of altered frames only the beginning that is unaltered comes up, and that the rest is noticed."""
    signed = listener.came.copy()
    with pytest.raises(SignatureError):
        listener.hear(altered)
    came = listener.came[len(signed) :]
    assert came == sent[: len(came)]


def test_the_layer_and_its_factory_are_what_their_interfaces_say() -> None:
    factory = SigningFactory()
    verifyObject(IFrameLayerFactory, factory)
    layer = factory.layer(End([]).view)
    assert layer is not None
    layer.above = layer.below = None
    verifyObject(IFrameLayer, layer)


def test_a_signed_frame_is_the_one_that_the_specification_describes() -> None:
    dialler = End([SigningFactory()])
    body = bytes.fromhex("0000000000000001185d72f95fc3df15000004d200000000")
    for sequence in range(3):
        ((message_type, payload),) = dialler.send((0x32, b"\1\0\0\0\7" + body))
        # Flags: CORRELATED (bit 0) and SIGNED (bit 6); then the exchange; the body; 16 bytes of signature.
        unsigned = b"\x41\0\0\0\7" + body
        length = len(unsigned) + 16
        header = b"\x48\x43\x52\x41\x02\x32" + length.to_bytes(4, "big")
        digest = hmac.new(KEYS[0], sequence.to_bytes(8, "big") + header + unsigned, hashlib.sha256).digest()
        assert (message_type, payload) == (0x32, unsigned + digest[:16])


def test_the_first_frame_signed_with_a_known_key_has_a_known_signature() -> None:
    """The same by hand, without HMAC's implementation: H(key ^ opad ‖ H(key ^ ipad ‖ message))."""
    dialler = End([SigningFactory()], keys=(bytes(range(32)), bytes(32)))
    ((_, payload),) = dialler.send((0x00, b"\0"))
    key = bytes(range(32)) + bytes(32)
    message = struct.pack(">Q", 0) + bytes.fromhex("484352410200") + struct.pack(">I", 17) + b"\x40"
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()
    assert payload == b"\x40" + outer[:16]


@given(frames_strategy)
def test_the_layer_signs_and_verifies_as_the_pure_functions_do(frames: list[Frame]) -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*frames)
    for sequence, (message_type, payload) in enumerate(written):
        verify(KEYS[0], sequence, frame(EXTENDED_VERSION, message_type, payload))
    made = [
        sign(KEYS[1], sequence, message_type, bytes((payload[0] | 0x40,)) + payload[1:])
        for sequence, (message_type, payload) in enumerate(frames)
    ]
    listener.stack.receive([(whole[5], whole[14:]) for whole in [frame(EXTENDED_VERSION, *each) for each in written]])
    dialler.stack.receive([(whole[5], whole[14:]) for whole in made])
    cleared = [(message_type, bytes((payload[0] & ~0x40,)) + payload[1:]) for message_type, payload in frames]
    assert listener.came == dialler.came == cleared


@given(frames_strategy, st.integers(1, 50), st.lists(st.integers(1, 4), max_size=6))
def test_frames_come_back_however_they_are_written_and_cut(frames: list[Frame], chunk: int, writes: list[int]) -> None:
    dialler, listener = pair(SigningFactory())
    frames = [(message_type, bytes((payload[0] & ~0x40,)) + payload[1:]) for message_type, payload in frames]
    rest = frames
    for count in writes:
        dialler.send(*rest[:count])
        rest = rest[count:]
    dialler.send(*rest)
    listener.hear(dialler.written, chunk * 37)
    assert listener.came == frames


@given(st.data())
def test_no_bit_can_be_changed(data: st.DataObject) -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*FRAMES)
    place = data.draw(st.integers(0, len(written) - 1))
    message_type, payload = written[place]
    bit = data.draw(st.integers(0, 8 * (1 + len(payload)) - 1))
    raw = bytearray((message_type,)) + payload
    raw[bit // 8] ^= 1 << bit % 8
    heard(FRAMES, [*written[:place], (raw[0], bytes(raw[1:])), *written[place + 1 :]], listener)
    assert listener.came == FRAMES[:place]


@given(st.data())
def test_no_frame_can_be_dropped_doubled_swapped_cut_stretched_or_brought_in(data: st.DataObject) -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*FRAMES)
    place = data.draw(st.integers(0, len(written) - 2))
    message_type, payload = written[place]
    other = data.draw(st.integers(place + 1, len(written) - 1))
    swapped = written.copy()
    swapped[place], swapped[other] = swapped[other], swapped[place]
    cut = data.draw(st.integers(0, len(payload) - 1))
    alterations: list[list[Frame]] = [
        written[:place] + written[place + 1 :],
        [*written[: place + 1], *written[place:]],
        swapped,
        [*written[:place], (message_type, payload[:cut]), *written[place + 1 :]],
        [*written[:place], (message_type, payload + data.draw(st.binary(min_size=1, max_size=40))), *written[place + 1 :]],
        [*written[:place], (data.draw(st.integers(0, 255)), data.draw(st.binary(max_size=60))), *written[place:]],
        [*written[:place], FRAMES[place], *written[place:]],
    ]
    for altered in alterations:
        _, listener = pair(SigningFactory())
        heard(FRAMES, altered, listener)
        assert len(listener.came) in (place, place + 1)


def test_what_was_sent_before_cannot_be_sent_again_in_a_later_read() -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*FRAMES)
    listener.hear(written)
    for place in range(len(written)):
        again = End([SigningFactory()], dialled=False)
        again.hear(written)
        with pytest.raises(SignatureError):
            again.hear([written[place]])
        assert again.came == FRAMES


def test_a_frame_of_another_connection_is_none_of_this_one() -> None:
    written = End([SigningFactory()], keys=(b"x" * 32, b"y" * 32)).send(*FRAMES)
    _, listener = pair(SigningFactory())
    heard(FRAMES, written, listener)
    assert listener.came == []


def test_a_frame_cannot_be_sent_back_to_where_it_comes_from() -> None:
    dialler, _ = pair(SigningFactory())
    heard(FRAMES, dialler.send(*FRAMES), dialler)
    assert dialler.came == []


def test_each_direction_counts_for_itself() -> None:
    dialler, listener = pair(SigningFactory())
    for _ in range(3):
        listener.hear(dialler.send(*FRAMES))
        dialler.hear(listener.send((0x33, b"\3")))
    assert listener.came == FRAMES * 3
    assert dialler.came == [(0x33, b"\3")] * 3


@pytest.mark.parametrize("payload", [b"", b"\0", b"\x40", b"\x40" + bytes(15), b"\x40" + bytes(16), b"\x01\0\0\0\1" + bytes(24)])
def test_a_frame_that_is_not_signed_is_refused_and_the_frames_before_it_are_not(payload: bytes) -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*FRAMES)
    heard(FRAMES, [*written[:2], (0x32, payload), *written[2:]], listener)
    assert listener.batches == [FRAMES[:2]]


def test_a_good_signature_without_the_flag_is_refused() -> None:
    listener = End([SigningFactory()], dialled=False)
    unsigned = b"\0body"
    header = b"\x48\x43\x52\x41\x02\x32" + (len(unsigned) + 16).to_bytes(4, "big")
    signature = hmac.digest(KEYS[0], bytes(8) + header + unsigned, "sha256")[:16]
    with pytest.raises(SignatureError):
        listener.hear([(0x32, unsigned + signature)])
    assert listener.came == []


def test_nothing_comes_up_once_a_frame_did_not_verify() -> None:
    dialler, listener = pair(SigningFactory())
    written = dialler.send(*FRAMES)
    with pytest.raises(SignatureError):
        listener.hear([(0x32, b"\0forged" + bytes(16))])
    with pytest.raises(SignatureError):
        listener.hear(written)
    assert listener.came == []


def test_without_keys_there_is_no_layer_and_with_keys_never_a_link_without_it() -> None:
    factory = SigningFactory()
    assert factory.layer(End([], keys=None).view) is None
    assert factory.layer(End([], keys=None, capabilities=0).view) is None
    with pytest.raises(AuthenticationError):
        factory.layer(End([], capabilities=0).view)
    # A layer whose capability the peer lacks is left out of a stack.
    assert factory.capability == 0
    assert not factory.base_peers


def test_payloads_come_back_on_both_sides_of_the_length_from_which_they_are_signed_in_pieces() -> None:
    dialler, listener = pair(SigningFactory())
    large: list[Any] = [(0x20, b"\0" + bytes(size)) for size in (8175, 8176, 8177, 8192, 1 << 20)]
    listener.hear(dialler.send(*large))
    assert listener.came == large
