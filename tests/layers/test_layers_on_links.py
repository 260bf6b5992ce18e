"""The built-in layers in real links: pauses are the transport's, refusals are answers."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hypercache.auth.none import NoAuthProvider
from hypercache.config import load_settings
from hypercache.errors import RefusedError
from hypercache.layers.built_in import built_in_layers
from hypercache.wire import ErrorCode, Status
from hypercache.wire.checksum import crc32
from hypercache.wire.extension import COMPRESSED, SIGNED
from hypercache.wire.header import HEADER
from hypercache.wire.messages import SCHEMA, HashRingQuery, ReplicateData, ReplicateResponse
from tests.net.peers import Terms, Wire, beat, linked, peer_factory, write

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink
    from hypercache.net.peer import PeerFactory

KEYS = (b"d" * 32, b"l" * 32)
ALL_CAPABILITIES = 0x7A
TEXT = b'{"name": "value"}, ' * 500


class Keyed:
    """An authentication that has made keys."""

    proof = b""
    expires = inf

    def __init__(self, *, dialled: bool) -> None:
        self.keys = KEYS if dialled else KEYS[::-1]


class KeyedProvider(NoAuthProvider):
    """Trusts everybody, and signs."""

    def authenticate(self, handshake: Any) -> Any:
        return Keyed(dialled=handshake.dialled)


def factory(clock: Clock, *overrides: str, node_id: int = 1) -> PeerFactory:
    made: PeerFactory

    def count(frames: int) -> None:
        made.metrics.rate_limited += frames

    layers = built_in_layers(load_settings("", overrides), schema=SCHEMA, count_limited=count)
    terms = Terms(KeyedProvider(), node_id=node_id, capabilities=ALL_CAPABILITIES)
    made = peer_factory(clock=clock, terms=terms, layers=layers)
    return made


def pump(clock: Clock, *ends: tuple[PeerLink, Wire]) -> bytes:
    """Carry bytes between two links until there are none, but none to a link that does not read; return the dialler's."""
    (first, first_wire), (second, second_wire) = ends
    carried = b""
    moved = True
    while moved:
        clock.advance(0)
        moved = False
        for wire, to, to_wire in ((first_wire, second, second_wire), (second_wire, first, first_wire)):
            if wire.writes and to_wire.producerState == "producing":
                data = b"".join(wire.writes)
                wire.writes.clear()
                if to is second:
                    carried += data
                to.dataReceived(data)
                moved = True
    return carried


def joined(clock: Clock, *overrides: str) -> tuple[tuple[PeerLink, Wire], tuple[PeerLink, Wire]]:
    dialler = linked(factory(clock, *overrides, node_id=2), dialled=True)
    listener = linked(factory(clock, *overrides))
    connected: list[Any] = []
    dialler[0].negotiate().addBoth(connected.append)
    pump(clock, dialler, listener)
    assert connected == [None]
    return dialler, listener


def test_a_base_peer_over_the_limit_is_read_again_when_it_can_pay() -> None:
    clock = Clock()
    link, wire = linked(factory(clock, "rate.per_second=3", "rate.burst=6"))
    link.dataReceived(beat(1))
    link.dataReceived(b"".join(write(b"%d" % number) for number in range(5)))
    assert len(wire.events()) == 1 + 2
    assert wire.producerState == "paused"
    clock.advance(1)
    assert len(wire.events()) == 1
    assert wire.producerState == "paused"
    clock.advance(2)
    assert len(wire.events()) == 2
    assert wire.producerState == "producing"
    assert link.factory.metrics.rate_limited == 3


def test_a_base_peer_over_the_limit_is_told_to_retry_later() -> None:
    link, wire = linked(factory(Clock(), "rate.per_second=3", "rate.burst=3", "rate.policy=reject"))
    link.dataReceived(beat(1))
    link.dataReceived(b"".join((write(b"a"), write(b"b"), HashRingQuery(1).encode_frame())))
    _, first, second, third = wire.events()
    assert first == ReplicateResponse(0, 0)
    assert second == ReplicateResponse(Status.RETRY_LATER, ErrorCode.RATE_LIMITED & 0xFF)
    assert getattr(third, "error_code", None) == ErrorCode.INTERNAL_ERROR


def test_over_all_layers_every_request_is_answered_and_every_frame_signed() -> None:
    clock = Clock()
    dialler, listener = joined(clock, "compression.codec=zstd", "rate.per_second=30", "rate.burst=30")
    answers: list[Any] = []
    for number in range(40):
        value = TEXT if number % 2 else b"short"
        dialler[0].request(ReplicateData(1, 0, "", b"k", value), timeout=100.0).addBoth(answers.append)
        listener[0].request(ReplicateData(1, 0, "", b"k", value), timeout=100.0).addBoth(answers.append)
    carried = pump(clock, dialler, listener)
    flags = []
    while carried:
        length = HEADER.unpack_from(carried)[3]
        flags.append(carried[HEADER.size])
        carried = carried[HEADER.size + length :]
    assert all(each & SIGNED for each in flags)
    assert sum(bool(each & COMPRESSED) for each in flags) == 20
    assert len(answers) < 80
    assert listener[1].producerState == dialler[1].producerState == "paused"
    for _ in range(400):
        clock.advance(0.01)
        pump(clock, dialler, listener)
    assert answers == [ReplicateResponse(0, 0)] * 80
    assert listener[1].producerState == dialler[1].producerState == "producing"


def test_a_request_over_the_limit_is_refused_and_the_link_stays() -> None:
    clock = Clock()
    dialler, listener = joined(clock, "rate.per_second=3", "rate.burst=3", "rate.policy=reject")
    answers: list[Any] = []
    for message in (ReplicateData(1, 0, "", b"k", b"v"), ReplicateData(1, 0, "", b"k", b"v"), HashRingQuery(2)):
        dialler[0].request(message).addBoth(answers.append)
    pump(clock, dialler, listener)
    assert answers[:2] == [ReplicateResponse(0, 0), ReplicateResponse(Status.RETRY_LATER, ErrorCode.RATE_LIMITED & 0xFF)]
    assert answers[2].check(RefusedError)
    assert answers[2].value.code == ErrorCode.RATE_LIMITED
    clock.advance(1)
    dialler[0].request(ReplicateData(1, 0, "", b"k", b"v")).addBoth(answers.append)
    pump(clock, dialler, listener)
    assert answers[3] == ReplicateResponse(0, 0)


@pytest.mark.parametrize("side", [0, 1])
def test_a_changed_frame_ends_the_link_and_is_never_handled(side: int) -> None:
    clock = Clock()
    ends = joined(clock)
    link, wire = ends[side]
    other, other_wire = ends[1 - side]
    link.request(ReplicateData(1, 0, "", b"k", b"v")).addErrback(lambda failure: None)
    clock.advance(0)
    data = bytearray(b"".join(wire.writes))
    wire.writes.clear()
    magic, version, message_type, length, _ = HEADER.unpack_from(data)
    data[-17] ^= 1
    data[: HEADER.size] = HEADER.pack(magic, version, message_type, length, crc32(bytes(data[HEADER.size :])))
    other.dataReceived(bytes(data))
    assert other.factory.metrics.meter(ReplicateData.TYPE).received == 0
    assert other.factory.metrics.links_broken == 1
    assert other_wire.writes == []
    assert other_wire.disconnecting


def test_a_peer_that_cannot_sign_gets_no_link() -> None:
    clock = Clock()
    dialler = linked(factory(clock, node_id=2), dialled=True)
    terms: Any = dialler[0].factory.terms
    terms.capabilities = ALL_CAPABILITIES & ~0x10
    listener = linked(factory(clock))
    failures: list[Any] = []
    dialler[0].negotiate().addErrback(failures.append)
    pump(clock, dialler, listener)
    assert len(failures) == 1
    assert not dialler[0].usable
    assert not listener[0].usable


def test_the_layers_end_with_the_link() -> None:
    clock = Clock()
    link, _ = linked(factory(clock, "rate.per_second=1", "rate.burst=3"))
    link.dataReceived(beat(1))
    before = len(clock.getDelayedCalls())
    link.dataReceived(write(b"a") * 5)
    assert len(clock.getDelayedCalls()) == before + 1
    link.connectionLost(Failure(ConnectionDone()))
    assert clock.getDelayedCalls() == []
