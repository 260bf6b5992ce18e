"""Peers that send whatever they like, in any order: no fault of ours comes of it, and nothing is left behind."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from hypercache.auth.none import NoAuthProvider
from hypercache.errors import AuthenticationError, RequestError
from hypercache.net.lifecycle import LinkState
from hypercache.net.peer import PeerLink
from hypercache.wire import Extension, encode_extended
from hypercache.wire.header import frame
from hypercache.wire.messages import (
    AuthProof,
    AuthResult,
    GenericError,
    Goodbye,
    HashRingQuery,
    HashRingUpdate,
    Heartbeat,
    HeartbeatResponse,
    Hello,
    HelloReply,
    KeepAlive,
    ReplicateData,
    ReplicateResponse,
    SchemaRequest,
    StreamReset,
    VoteRequest,
    WindowUpdate,
)
from tests.net.peers import DONE, MAX_FRAME, Handler, Terms, Wire, peer_factory

if TYPE_CHECKING:
    from hypercache.wire import Message

PROOF = bytes(32)


class Accepted:
    """An authentication that knows one proof."""

    keys = None
    proof = PROOF
    expires = inf

    def verify(self, proof: bytes) -> bool:
        return proof == PROOF


class Provider:
    """An auth provider of any kind."""

    name = "test"

    def __init__(self, *, proves: bool, required: bool, refuses: bool) -> None:
        self.proves = proves
        self.required = required
        self.refuses = refuses

    def key_id(self) -> str:
        return ""

    def authenticate(self, handshake: Any) -> Accepted:
        if self.refuses:
            raise AuthenticationError("no")
        return Accepted()


def hello(cls: type[Hello | HelloReply]) -> bytes:
    return cls(1, 2, 0x78, 7, 1, 0, 1, 0, bytes(32), MAX_FRAME, 0, "", "n", "", "").encode_frame()


def any_message(rng: random.Random) -> Message:
    stream = rng.choice((1, 2, 3))
    return rng.choice(
        (
            KeepAlive(),
            AuthProof(PROOF),
            AuthProof(b"x" * 32),
            AuthResult(0, 0, PROOF),
            AuthResult(1, 5, PROOF),
            Goodbye(0, "bye"),
            WindowUpdate(stream, 1, 1),
            StreamReset(stream, rng.choice((0, 1, 4, 9)), "why"),
            SchemaRequest(),
            VoteRequest(1, 7, 0, 0),
            ReplicateData(1, 0, "", b"k", b"v"),
            ReplicateResponse(0, 0),
            Heartbeat(7, 1, 1),
            HeartbeatResponse(1, 0),
            HashRingUpdate(1, ()),
            HashRingQuery(7),
            GenericError(rng.choice((0x0001, 0x0005, 0x0101)), 0, "an error"),
        )
    )


def any_bytes(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.05:
        return hello(rng.choice((Hello, HelloReply)))
    if kind < 0.45:
        return any_message(rng).encode_frame()
    if kind < 0.9:
        extension = Extension(rng.choice((None, 1, 2)), reply=rng.random() < 0.2, stream=rng.choice((0, 1, 2, 65535)))
        return encode_extended(any_message(rng), extension)
    return rng.choice((frame(2, rng.randrange(256), rng.randbytes(9)), frame(1, rng.randrange(256), b""), rng.randbytes(5)))


class Life:
    """One link from its beginning to its end, with a peer that has no plan."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = Clock()
        self.later: list[Deferred[Any]] = []
        provider: Any = NoAuthProvider()
        if rng.random() < 0.7:
            provider = Provider(proves=rng.random() < 0.5, required=rng.random() < 0.6, refuses=rng.random() < 0.2)
        factory = peer_factory(Handler(0x20, self._handle), clock=self.clock, terms=Terms(provider))
        self.states: set[LinkState] = set()
        self.link = PeerLink(factory, dialled=rng.random() < 0.5)
        self.wire = Wire()
        if self.link.dialled:
            self.link.machine.dial()
        self.link.makeConnection(self.wire)
        self.plan = [any_bytes(rng) for _ in range(rng.randrange(20))]
        if self.link.dialled:
            self.link.negotiate().addErrback(lambda failure: None)
            self.plan[:0] = [hello(HelloReply), AuthResult(0, 0, PROOF).encode_frame()][: rng.randrange(3)]
        else:
            self.plan[:0] = [hello(Hello), AuthProof(PROOF).encode_frame()][: rng.randrange(3)]

    def _handle(self, context: Any, message: Any) -> Any:
        if self.rng.random() < 0.5:
            return DONE
        answer: Deferred[Any] = Deferred()
        self.later.append(answer)
        return answer

    def live(self) -> None:
        while self.plan and self.link.connected_now:
            count = self.rng.randrange(1, 4)
            self.link.dataReceived(b"".join(self.plan[:count]))
            del self.plan[:count]
            self.states.add(self.link.state)
            self._something_else()
        if self.link.connected_now:
            self.link.connectionLost(Failure(ConnectionDone()))
        for answer in self.later:
            answer.callback(DONE)
        self.clock.pump([1.0] * 10)

    def _something_else(self) -> None:
        what = self.rng.randrange(16)
        link = self.link
        if what == 0:
            self.clock.advance(self.rng.choice((0.0, 0.6, 1.0, 6.0)))
        elif what == 1 and self.later:
            self.later.pop().callback(DONE)
        elif what == 2:
            link.retire("enough")
        elif what == 3 and link.usable:
            link.request(Heartbeat(1, 1, 1)).addErrback(lambda failure: failure.trap(RequestError))
        elif what == 4 and link.usable and link.extended:
            link.send_on(link.open_stream(), Heartbeat(1, 1, 1))
        elif what == 5:
            self.wire.full = True
        elif what == 6 and self.wire.producer is not None:
            self.wire.drain()


@pytest.mark.parametrize("block", range(4))
def test_whatever_a_peer_sends_the_machine_knows_it_and_nothing_is_left(block: int) -> None:
    failures: list[Any] = []

    def note(event: Any) -> None:
        if "log_failure" in event:
            failures.append(event["log_failure"])

    observer: Any = note
    globalLogPublisher.addObserver(observer)
    states: set[LinkState] = set()
    try:
        for seed in range(block * 1000, block * 1000 + 1000):
            life = Life(seed)
            try:
                life.live()
            except Exception as error:
                error.add_note(f"seed {seed}")
                raise
            assert not failures, seed
            assert life.link.state is LinkState.DISCONNECTED, seed
            assert not life.clock.getDelayedCalls(), seed
            assert len(life.link.exchanges) == len(life.link.streams) == 0, seed
            states |= life.states
    finally:
        globalLogPublisher.removeObserver(observer)
    assert states >= {LinkState.HANDSHAKING, LinkState.AUTHENTICATING, LinkState.CONNECTED, LinkState.CLOSING}
