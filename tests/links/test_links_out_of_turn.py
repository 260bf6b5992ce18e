"""Messages of the handshake and of the link itself in each state: out of place, nothing is handled and nothing breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hypercache.auth.none import NoAuthProvider
from hypercache.net.lifecycle import LinkState
from hypercache.wire import Extension, encode_extended
from hypercache.wire.messages import (
    AuthProof,
    AuthResult,
    GenericError,
    Goodbye,
    Heartbeat,
    Hello,
    HelloReply,
    KeepAlive,
    ReplicateData,
    StreamReset,
    WindowUpdate,
)
from hypercache.wire.signing import sign
from tests.links.pair import BODY_AT, Pair, Side, messages_of
from tests.net.peers import MAX_FRAME

if TYPE_CHECKING:
    from hypercache.wire import Message

NONCE = bytes(range(32))
MESSAGES: dict[str, Message] = {
    "Hello": Hello(1, 2, 0x78, 5, 1, 7, 1, 0, NONCE, MAX_FRAME, 0, "main", "n", "", ""),
    "HelloReply": HelloReply(1, 2, 0x78, 9, 1, 7, 1, 0, NONCE, MAX_FRAME, 0, "main", "n", "", ""),
    "AuthProof": AuthProof(bytes(32)),
    "AuthResult": AuthResult(0, 0, bytes(32)),
    "a refusal": AuthResult(1, 5, bytes(32)),
    "Goodbye": Goodbye(0, "bye"),
    "WindowUpdate": WindowUpdate(1, 1, 1),
    "StreamReset": StreamReset(1, 1, ""),
    "KeepAlive": KeepAlive(),
    "GenericError": GenericError(1, 0, "no"),
    "a write": ReplicateData(1, 0, "", b"k", b"v"),
}
STATES = ("HANDSHAKING", "AUTHENTICATING", "CONNECTED", "CLOSING")
IN_TURN = {
    (False, "HANDSHAKING"): {"Hello", "KeepAlive"},
    (True, "HANDSHAKING"): {"HelloReply", "KeepAlive"},
    (False, "AUTHENTICATING"): {"KeepAlive"},
    (True, "AUTHENTICATING"): {"KeepAlive"},
}
"""What the state allows, by who dialled; no proof here is right."""


def brought_to(state: str, **options: Any) -> Pair:
    """Return a link of which both sides are in a state."""
    last = {"HANDSHAKING": Hello.TYPE, "AUTHENTICATING": AuthProof.TYPE}.get(state)
    pair = Pair(change=lambda side, frame: [] if frame[5] == last else [frame], **options)
    pair.dialler.link.negotiate().addBoth(pair.outcome.append)
    if last is None:
        pair.run()
    else:
        pair.step()
        if state == "AUTHENTICATING":
            pair.step()
    if state == "CLOSING":
        # Its request is not answered, so that it waits.
        for side in pair.sides:
            side.ask(Heartbeat(side.node_id, 1, 1), timeout=60)
            side.link.retire("enough")
            side.written()
    assert all(side.link.state.name == state for side in pair.sides), [side.link.state for side in pair.sides]
    return pair


def served_count(pair: Pair) -> int:
    return len(pair.dialler.handled) + len(pair.listener.handled)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("what", MESSAGES)
def test_a_version_1_frame_on_a_link_with_keys(state: str, what: str) -> None:
    frame = MESSAGES[what].encode_frame()
    for place in range(2):
        for count in (1, 2000):
            pair = brought_to(state)
            side = pair.sides[place]
            side.hear(frame * count)
            assert not served_count(pair)
            if what in IN_TURN.get((side.link.dialled, state), ()):
                assert not side.is_over or (count > 1 and what != "KeepAlive")
            else:
                # The deadline of the state ends what has been refused only with delay.
                pair.clock.pump([0.5] * 4)
                assert side.is_over
            assert len(side.written()) <= 2
            assert pair.is_over(10) or state == "CONNECTED"
            assert not served_count(pair)


@pytest.mark.parametrize("state", STATES[:2])
@pytest.mark.parametrize("what", MESSAGES)
def test_a_version_2_frame_before_the_end_of_the_handshake(state: str, what: str) -> None:
    frame = encode_extended(MESSAGES[what], Extension(1))
    for place in range(2):
        pair = brought_to(state)
        side = pair.sides[place]
        side.hear(frame * 100)
        assert not served_count(pair)
        assert not side.link.extended
        assert pair.is_over(10)
        assert not served_count(pair)


def signed(side: Side, message: Message, count: int, *, reply: bool = False) -> bytes:
    """Return what the other side of a link would sign, from its first frame on."""
    payload = encode_extended(message, Extension(1, reply=reply))[BODY_AT:]
    return b"".join(signed_payload(side, message.TYPE, payload, number) for number in range(count))


def signed_payload(side: Side, message_type: int, payload: bytes, number: int = 0) -> bytes:
    assert side.link.negotiation is not None
    key = side.link.negotiation._authentication.keys[1]
    return sign(key, number, message_type, bytes((payload[0] | 0x40,)) + payload[1:])


@pytest.mark.parametrize("what", MESSAGES)
def test_a_signed_frame_that_has_no_place_on_a_link_that_stands(what: str) -> None:
    ends = {"Hello", "HelloReply", "AuthProof", "AuthResult", "a refusal", "Goodbye"}
    for place in range(2):
        pair = brought_to("CONNECTED")
        side = pair.sides[place]
        side.hear(signed(side, MESSAGES[what], 300))
        answers = messages_of(side.written())
        if what == "a write":
            assert len(side.handled) == len(answers) == 300
            continue
        assert not side.handled
        assert len(answers) <= 1
        # The answers among them were asked for by nobody: they are dropped.
        assert side.is_over == (what in ends - {"HelloReply", "AuthResult", "a refusal"})


@pytest.mark.parametrize("what", MESSAGES)
def test_errors_and_answers_are_never_answered_by_errors(what: str) -> None:
    for place in range(2):
        pair = brought_to("CONNECTED")
        side = pair.sides[place]
        side.hear(signed(side, MESSAGES[what], 300, reply=True))
        assert not side.handled
        assert not side.written()
        assert side.is_trusted


def test_neither_an_error_that_is_malformed_nor_an_answer_of_an_unknown_type_is_answered() -> None:
    for place in range(2):
        pair = brought_to("CONNECTED")
        side = pair.sides[place]
        side.hear(signed_payload(side, 0xEE, b"\3\0\0\0\1answer"))
        assert side.is_trusted
        side.hear(signed_payload(side, GenericError.TYPE, b"\0x", 1))
        assert side.is_over
        assert not side.written()


@pytest.mark.parametrize("first", [Heartbeat(5, 1, 1), GenericError(7, 0, "no"), AuthProof(NONCE)])
def test_a_link_without_authentication_takes_what_comes_first_for_a_base_peers(first: Message) -> None:
    pair = Pair(provider=NoAuthProvider())
    pair.listener.hear(first.encode_frame() + Heartbeat(5, 2, 1).encode_frame())
    if isinstance(first, AuthProof):
        assert pair.listener.is_over
        assert not pair.listener.handled
    else:
        assert pair.listener.link.state is LinkState.CONNECTED
        assert not pair.listener.link.extended
        assert pair.listener.handled[-1] == Heartbeat(5, 2, 1)
