"""Whoever sits on the link while it shakes hands: what is changed, swapped, replayed or sent back makes no link."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from twisted.python.failure import Failure

from hypercache.limits import AUTH_TIMEOUT_SECONDS
from hypercache.net.lifecycle import LinkState
from hypercache.wire import Capability, encode_extended
from hypercache.wire.extension import Extension
from hypercache.wire.messages import (
    PROOF_BYTES,
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
from tests.auth.handshakes import key
from tests.links.pair import BODY_AT, CAPABILITIES, Pair, Side, flipped, reframed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.wire import Message

GREETINGS: dict[str, Any] = {"Hello": Hello, "HelloReply": HelloReply}
EVIL = ReplicateData(1, 0, "", b"forged", b"by nobody")


def changed(frame: bytes, **fields: Any) -> bytes:
    """Return a greeting that says something else."""
    cls = Hello if frame[5] == Hello.TYPE else HelloReply
    return msgspec.structs.replace(cls.decode_payload(frame[BODY_AT:]), **fields).encode_frame()


def on(cls: type[Message], change: Callable[[bytes], list[bytes]]) -> Callable[[Side, bytes], list[bytes]]:
    """Return what changes the frames of one type, and passes on all others."""
    return lambda side, frame: change(frame) if frame[5] == cls.TYPE else [frame]


def refused(pair: Pair) -> bool:
    """Return whether an attempt to link comes to nothing, at both sides, and says so."""
    pair.negotiate()
    return pair.is_over() and pair.is_refused and [type(each) for each in pair.outcome] == [Failure]


def test_greetings_that_nobody_touches_make_a_link() -> None:
    pair = Pair().negotiate()
    assert all(side.is_trusted for side in pair.sides)
    assert pair.outcome == [None]


CHANGES: dict[str, dict[str, Any]] = {
    **{f"without {each.name}": {"capabilities": CAPABILITIES & ~each} for each in Capability if CAPABILITIES & each},
    **{f"with {each.name}": {"capabilities": CAPABILITIES | each} for each in Capability if not CAPABILITIES & each},
    "without any capability": {"capabilities": 0},
    "only version 1": {"highest_version": 1},
    "a lowest version of 2": {"lowest_version": 2},
    "a highest version of 3": {"highest_version": 3},
    "smaller frames": {"max_frame": 1 << 16},
    "larger frames": {"max_frame": (1 << 32) - 1},
    "another node": {"node_id": 12},
    "no node": {"node_id": 0},
    "another boot": {"boot": 2},
    "another cluster": {"cluster_id": 8},
    "no cluster": {"cluster_id": 0},
    "another role": {"node_type": 2},
    "another clock": {"clock": 1 << 60},
    "another nonce": {"nonce": bytes(32)},
    "another schema": {"schema_hash": 5},
    "another key": {"key_id": "alien"},
    "no key": {"key_id": ""},
    "another name": {"name": "evil"},
    "another address for clients": {"client_address": "10.6.6.6:6379"},
    "another address": {"cluster_address": "10.6.6.6:7379"},
}


@pytest.mark.parametrize("greeting", GREETINGS)
@pytest.mark.parametrize("what", CHANGES)
def test_a_greeting_cannot_be_given(what: str, greeting: str) -> None:
    cls = GREETINGS[greeting]
    assert refused(Pair(change=on(cls, lambda frame: [changed(frame, **CHANGES[what])]), credentials=[key(), key("alien", seed=2)]))


def test_both_greetings_cannot_be_given_the_same_lie() -> None:
    for name, fields in CHANGES.items():

        def lie(side: Side, frame: bytes, fields: dict[str, Any] = fields) -> list[bytes]:
            return [changed(frame, **fields)] if frame[5] in (Hello.TYPE, HelloReply.TYPE) else [frame]

        assert refused(Pair(change=lie)), name


@pytest.mark.parametrize("greeting", GREETINGS)
def test_no_byte_of_a_greeting_can_be_changed(greeting: str) -> None:
    cls = GREETINGS[greeting]
    rng = random.Random(3)
    size = len(Pair().dialler.terms.hello(cls, "main").encode_frame())
    for place in range(size):
        bit = 8 * place + rng.randrange(8)
        pair = Pair(change=on(cls, lambda frame, bit=bit: [flipped(frame, bit)])).negotiate()  # type: ignore[misc]
        assert pair.is_refused, place
        assert pair.is_over(80), place


def test_bytes_behind_a_greeting_are_covered_too() -> None:
    for cls in (Hello, HelloReply):
        assert refused(Pair(change=on(cls, lambda frame: [reframed(frame, frame[BODY_AT:] + b"\0")])))


def test_no_byte_of_a_proof_can_be_changed() -> None:
    for place in range(PROOF_BYTES):
        pair = Pair(change=on(AuthProof, lambda frame, bit=8 * (BODY_AT + place) + place % 8: [flipped(frame, bit)]))  # type: ignore[misc]
        assert refused(pair), place
        # The listener's comes behind status and error code.
        start = BODY_AT + 2
        pair = Pair(change=on(AuthResult, lambda frame, bit=8 * (start + place) + place % 8: [flipped(frame, bit)]))  # type: ignore[misc]
        pair.negotiate()
        assert not pair.dialler.is_trusted
        assert not pair.listener.handled
        assert pair.dialler.is_over


def test_a_refusal_cannot_be_made_a_success() -> None:
    def bless(side: Side, frame: bytes) -> list[bytes]:
        return [AuthResult(0, 0, frame[BODY_AT + 2 :]).encode_frame()] if frame[5] == AuthResult.TYPE else [frame]

    assert refused(Pair(change=bless, listener={"credentials": [key(seed=2)]}))


def test_the_greetings_of_two_connections_cannot_be_swapped() -> None:
    for cls in (Hello, HelloReply):
        one, other = Pair(seed=1), Pair(seed=2)
        for pair in (one, other):
            pair.dialler.link.negotiate().addErrback(lambda failure: None)
        kept = [pair.dialler.written() for pair in (one, other)]
        for pair, hello in zip((one, other), reversed(kept) if cls is Hello else kept, strict=True):
            pair.listener.hear(hello[0])
        replies = [pair.listener.written() for pair in (one, other)]
        for pair, reply in zip((one, other), reversed(replies) if cls is HelloReply else replies, strict=True):
            pair.dialler.hear(reply[0])
            pair.run()
        for pair in (one, other):
            assert pair.is_over()
            assert pair.is_refused


def test_a_recorded_handshake_is_worth_nothing_to_another_listener() -> None:
    recorded = Pair(seed=1).negotiate()
    hello, proof = recorded.sent[5]
    recorded.dialler.ask(EVIL)
    (request,) = recorded.dialler.written()
    for data in ([hello, proof, request], [hello + proof + request]):
        fresh = Pair(seed=2)
        for each in data:
            fresh.listener.hear(each)
        assert fresh.is_refused
        fresh.clock.pump([0.5] * 4)
        assert fresh.listener.is_gone
        assert fresh.is_refused


def test_a_recorded_handshake_is_worth_nothing_to_another_dialler() -> None:
    reply, result = Pair(seed=1).negotiate().sent[9]
    fresh = Pair(seed=2)
    fresh.dialler.link.negotiate().addBoth(fresh.outcome.append)
    assert fresh.dialler.written()
    fresh.dialler.hear(reply + result)
    assert fresh.dialler.is_over
    assert fresh.is_refused


def test_an_answer_that_comes_before_hello_is_out_of_turn() -> None:
    reply, _ = Pair(seed=1).negotiate().sent[9]
    fresh = Pair(seed=2)
    fresh.dialler.hear(reply)
    assert fresh.dialler.is_gone


def test_what_a_dialler_says_is_no_answer_to_it() -> None:
    """Its Hello, sent back as it is or as a HelloReply, and its proof as the listener's."""

    def reflect(side: Side, frame: bytes) -> list[bytes]:
        if frame[5] == AuthProof.TYPE:
            return [AuthResult(0, 0, frame[BODY_AT:]).encode_frame()]
        return [reframed(frame, message_type=HelloReply.TYPE)]

    for change in (reflect, lambda side, frame: [frame]):
        pair = Pair()
        pair.dialler.link.negotiate().addBoth(pair.outcome.append)
        for _ in range(3):
            for frame in pair.dialler.written():
                for each in change(pair.dialler, frame):
                    pair.dialler.hear(each)
        assert pair.dialler.is_over
        assert pair.is_refused


def test_a_listener_gets_no_trust_for_its_own_proof() -> None:
    """It proves nothing before the dialler has; what it says on one connection is no proof on another."""
    victim = Pair(seed=1).negotiate()
    _, result = victim.sent[9]
    fresh = Pair(seed=1)
    fresh.listener.hear(victim.sent[5][0])
    assert fresh.listener.written() == [victim.sent[9][0]], "the same nonces, so that the role alone makes the difference"
    fresh.listener.hear(AuthProof(result[BODY_AT + 2 :]).encode_frame())
    assert fresh.is_refused
    fresh.clock.pump([0.5] * 4)
    assert fresh.listener.is_over


INJECTED: dict[str, bytes] = {
    "a write": EVIL.encode_frame(),
    "a heartbeat": Heartbeat(5, 1, 1).encode_frame(),
    "an extended write": encode_extended(EVIL, Extension(1)),
    "an extended answer": encode_extended(Heartbeat(5, 1, 1), Extension(1, reply=True)),
    "an extended keep-alive": encode_extended(KeepAlive()),
    "an extended goodbye": encode_extended(Goodbye(0, "")),
    "an extended credit": encode_extended(WindowUpdate(1, 1, 1)),
    "an extended reset": encode_extended(StreamReset(1, 1, "")),
    "an extended write on a stream": encode_extended(EVIL, Extension(1, stream=2)),
    "a goodbye": Goodbye(0, "").encode_frame(),
    "a credit": WindowUpdate(1, 1, 1).encode_frame(),
    "an error": GenericError(7, 0, "").encode_frame(),
    "garbage": b"no frame",
    "another Hello": Hello(1, 2, 0, 6, 1, 7, 1, 0, bytes(32), 1 << 20, 0, "main", "", "", "").encode_frame(),
    "another HelloReply": HelloReply(1, 2, 0, 6, 1, 7, 1, 0, bytes(32), 1 << 20, 0, "main", "", "", "").encode_frame(),
    "a proof": AuthProof(bytes(32)).encode_frame(),
    "a success": AuthResult(0, 0, bytes(32)).encode_frame(),
    "an unknown type": reframed(EVIL.encode_frame(), message_type=0xEE),
    "an unknown version": reframed(EVIL.encode_frame(), version=9),
}
HANDSHAKE: dict[str, Any] = {"Hello": Hello, "HelloReply": HelloReply, "AuthProof": AuthProof, "AuthResult": AuthResult}


@pytest.mark.parametrize("what", INJECTED)
@pytest.mark.parametrize("before", HANDSHAKE)
def test_nothing_that_is_put_in_before_the_end_of_the_handshake_is_handled(before: str, what: str) -> None:
    """In front of each of its messages, in the same read or in one of its own."""
    for together in (False, True):

        def put_in(side: Side, frame: bytes, together: bool = together) -> list[bytes]:
            if frame[5] != HANDSHAKE[before].TYPE:
                return [frame]
            return [INJECTED[what] + frame] if together else [INJECTED[what], frame]

        pair = Pair(change=put_in)
        pair.negotiate()
        assert not pair.listener.handled
        assert not pair.dialler.handled
        for side in pair.sides:
            if side.is_trusted:
                # Then it is as if nothing had been put in, but for the peer, which may have gone: what is asked must be refused or
                # answered rightly.
                side.ask(Heartbeat(side.node_id, 7, 1))
        pair.run()
        assert pair.is_over() or all(side.is_trusted for side in pair.sides)
        for side in pair.sides:
            assert side.handled in ([], [Heartbeat(5, 7, 1)], [Heartbeat(9, 7, 1)])


def test_a_link_that_nobody_finishes_ends() -> None:
    for last, stays in ((Hello, LinkState.HANDSHAKING), (HelloReply, LinkState.HANDSHAKING), (AuthProof, LinkState.AUTHENTICATING)):
        pair = Pair(change=on(last, lambda frame: [])).negotiate()
        assert pair.dialler.link.state is stays
        assert pair.is_over(AUTH_TIMEOUT_SECONDS + 4)
        assert pair.is_refused


def test_both_sides_speak_first_of_the_handshake_even_where_something_urgent_waits() -> None:
    """A heartbeat that is sent in the moment in which a link is trusted comes behind the result of that."""

    pair = Pair()
    changed_to = pair.listener.factory.changed

    def beat_at_once(link: Any) -> None:
        changed_to(link)
        if link.state is LinkState.CONNECTED and not link.dialled:
            pair.listener.ask(Heartbeat(9, 1, 1))

    pair.listener.factory.changed = beat_at_once  # type: ignore[method-assign]
    pair.negotiate()
    assert all(side.is_trusted for side in pair.sides)
    assert pair.dialler.handled == [Heartbeat(9, 1, 1)]
