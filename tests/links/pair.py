"""Both ends of one link in memory: what one writes the test hands to the other, changed as it likes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hypercache.auth.credentials import Keyring
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.layers.signing import SigningFactory
from hypercache.net.lifecycle import LinkState
from hypercache.wire import Capability, Decoder
from hypercache.wire.checksum import crc32
from hypercache.wire.events import Extended
from hypercache.wire.header import HEADER, MAGIC_NUMBER
from hypercache.wire.messages import Heartbeat, HeartbeatResponse, Hello, HelloReply, ReplicateData, ReplicateResponse
from tests.auth.handshakes import key
from tests.net.peers import MAX_FRAME, Handler, Terms, linked, peer_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hypercache.auth.credentials import NodeCredential

NOW = 1_800_000_000.0
CAPABILITIES = int(Capability.STAMPS | Capability.MULTIPLEXING | Capability.TRACING | Capability.SIGNING)
DONE = ReplicateResponse(0, 0)
BODY_AT = 14


class PairTerms(Terms):
    """Terms of a node whose nonces differ."""

    def __init__(self, provider: Any, node_id: int, seed: int, **options: Any) -> None:
        super().__init__(provider, node_id=node_id, **options)
        self.wall = lambda: NOW
        self._rng = random.Random(seed)

    def hello(self, cls: type[Hello | HelloReply], key_id: str) -> Hello | HelloReply:
        nonce = self._rng.randbytes(32)
        return cls(1, 2, self.capabilities, self.node_id, 1, 7, 1, 0, nonce, MAX_FRAME, 0, key_id, f"n{self.node_id}", "", "")


class Side:
    """One end.

    Args:
        node_id: of the node.
        clock: of both.
        dialled: whether it dialled.
        seed: of its nonces.
        credentials: its keys.
        provider: where it is not one of keys.
        layers: beside the signing layer.
        capabilities: what it says it can.

    Attributes:
        handled: the messages that reached its handlers.
        handlers: what answers them.
        answers: what it was answered, errors too.
    """

    def __init__(
        self,
        node_id: int,
        clock: Clock,
        *,
        dialled: bool,
        seed: int = 1,
        credentials: Iterable[NodeCredential] = (),
        provider: Any = None,
        layers: Iterable[Any] = (),
        capabilities: int = CAPABILITIES,
        **settings: Any,
    ) -> None:
        self.node_id = node_id
        self.clock = clock
        self.handled: list[Any] = []
        self.answers: list[Any] = []
        self.handlers: dict[int, Callable[[Any], Any]] = {
            Heartbeat.TYPE: lambda message: HeartbeatResponse(message.timestamp, 0),
            ReplicateData.TYPE: lambda message: DONE,
        }
        ring = Keyring(list(credentials) or [key()])
        chosen = provider or SharedKeyProvider(lambda: ring, node_id, lambda: NOW, skew=60.0)
        self.terms = PairTerms(chosen, node_id, seed * 100 + node_id, capabilities=capabilities)
        self.factory = peer_factory(
            *[Handler(message_type, self._handle, requires_auth=True) for message_type in self.handlers],
            clock=clock,
            terms=self.terms,
            layers=[SigningFactory(), *layers],
            **settings,
        )
        self.factory.wall = lambda: NOW
        self.link, self.wire = linked(self.factory, dialled=dialled)
        self._unread = b""

    def _handle(self, context: Any, message: Any) -> Any:
        self.handled.append(message)
        return self.handlers[message.TYPE](message)

    def ask(self, message: Any, *, timeout: float | None = None) -> None:
        """Send a request; what comes of it goes to `answers`."""
        asked: Deferred[Any] = self.link.request(message, timeout=timeout)
        asked.addErrback(lambda failure: failure.value)
        asked.addCallback(self.answers.append)

    def written(self) -> list[bytes]:
        """Return the frames that were written since the last call."""
        self.clock.advance(0)
        data = b"".join(self.wire.writes)
        self.wire.writes.clear()
        return frames_of(data)

    def hear(self, data: bytes, *, cut: Sequence[int] = ()) -> None:
        """Read bytes, in pieces that end at the places given."""
        start = 0
        for end in (*sorted(cut), len(data)):
            if end > start and self.link.connected_now:
                self.link.dataReceived(data[start:end])
                start = end

    def lose(self) -> None:
        self.link.connectionLost(Failure(ConnectionLost()))

    @property
    def is_trusted(self) -> bool:
        return self.link.state is LinkState.CONNECTED

    @property
    def is_gone(self) -> bool:
        """Whether it has closed the connection."""
        return self.wire.disconnecting or self.wire.aborted

    @property
    def is_over(self) -> bool:
        """Whether it has closed the connection, or is about to and handles nothing more."""
        return self.link.ended


class Pair:
    """Both ends of one link.

    Args:
        seed: of the nonces.
        change: what becomes of each frame on its way, given the side that it comes from; nothing where it is not given.
        dialler, listener: options of the sides.

    Attributes:
        sent: the frames that each side has written, as written.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        change: Callable[[Side, bytes], list[bytes]] | None = None,
        dialler: dict[str, Any] | None = None,
        listener: dict[str, Any] | None = None,
        **both: Any,
    ) -> None:
        self.clock = Clock()
        self.dialler = Side(5, self.clock, dialled=True, seed=seed, **(both | (dialler or {})))
        self.listener = Side(9, self.clock, dialled=False, seed=seed, **(both | (listener or {})))
        self.change = change
        self.sent: dict[int, list[bytes]] = {5: [], 9: []}
        self.outcome: list[Any] = []

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.dialler, self.listener

    def negotiate(self) -> Pair:
        """Have the dialler say Hello, and pass on what comes of it."""
        self.dialler.link.negotiate().addBoth(self.outcome.append)
        self.run()
        return self

    def step(self) -> bool:
        """Pass on what each side has written; return whether there was anything."""
        moved = False
        for source, target in (self.sides, self.sides[::-1]):
            frames = source.written()
            self.sent[source.node_id] += frames
            for each in frames:
                moved = True
                for changed in [each] if self.change is None else self.change(source, each):
                    target.hear(changed)
        if not moved and any(side.is_gone for side in self.sides):
            # What was written before the end has arrived.
            self.end()
        return moved

    def run(self) -> None:
        while self.step():
            pass

    def end(self) -> None:
        """Have the connection end."""
        for side in self.sides:
            side.lose()

    @property
    def is_refused(self) -> bool:
        """Whether neither side trusts the other, and nothing was handled."""
        return not any(side.is_trusted or side.handled or side.answers for side in self.sides)

    def is_over(self, seconds: float = 20.0) -> bool:
        """Return whether both sides give up within so many seconds."""
        for _ in range(round(2 * seconds)):
            self.run()
            self.clock.advance(0.5)
        return all(side.is_over for side in self.sides)


def frames_of(data: bytes) -> list[bytes]:
    """Return the frames that sound bytes consist of."""
    frames = []
    while data:
        end = BODY_AT + int.from_bytes(data[6:10], "big")
        frames.append(data[:end])
        data = data[end:]
    return frames


def messages_of(frames: Iterable[bytes]) -> list[Any]:
    """Return what frames of version 0x02 carry, signatures left alone."""
    decoder = Decoder()
    decoder.extended = True
    return [event.message for event in decoder.feed(b"".join(frames)) if isinstance(event, Extended)]


def reframed(frame: bytes, payload: bytes | None = None, *, version: int | None = None, message_type: int | None = None) -> bytes:
    """Return a frame with another payload, version or type, and the checksum that it needs."""
    body = frame[BODY_AT:] if payload is None else payload
    head = (frame[4] if version is None else version, frame[5] if message_type is None else message_type)
    return HEADER.pack(MAGIC_NUMBER, *head, len(body), crc32(body)) + body


def flipped(frame: bytes, bit: int) -> bytes:
    """Return a frame with one bit changed, and with the checksum that it needs where that bit is in the payload."""
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    return reframed(bytes(changed)) if bit // 8 >= BODY_AT else bytes(changed)
