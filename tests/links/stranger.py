"""The far end of a connection that does as the test says: it shakes hands by hand, and signs what it likes."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from hypercache.wire import Capability, Decoder, Extension, encode_extended
from hypercache.wire.events import Extended
from hypercache.wire.messages import AuthProof, AuthResult, GenericError, Hello, HelloReply
from hypercache.wire.signing import DIALLER, SessionKeys, derive_keys, proof, sign
from tests.links.messages import LINKED_SCHEMA
from tests.links.pair import BODY_AT, frames_of, reframed
from tests.net.sockets import until

if TYPE_CHECKING:
    from hypercache.auth.credentials import NodeCredential
    from hypercache.wire import Message
    from hypercache.wire.events import Event
    from tests.links.nodes import LinkedNode

CAPABILITIES = int(Capability.STAMPS | Capability.MULTIPLEXING | Capability.TRACING | Capability.SIGNING | Capability.COMPRESSION)


class Stranger(Protocol):
    """One connection to a node.

    Args:
        node_id: whom it says that it is.
        fields: what else its Hello says.

    Attributes:
        events: what it was sent, decoded; signatures are not looked at.
        lost: the connection has ended.
    """

    transport: Any

    def __init__(self, node_id: int = 50, **fields: Any) -> None:
        self.events: list[Event] = []
        self.data = b""
        self.lost = False
        self._decoder = Decoder(LINKED_SCHEMA)
        self._decoder.extended = True
        self._fields: dict[str, Any] = {
            "lowest_version": 1,
            "highest_version": 2,
            "capabilities": CAPABILITIES,
            "node_id": node_id,
            "boot": 1,
            "cluster_id": 0,
            "node_type": 1,
            "clock": int(time.time() * 1000) << 16,
            "nonce": random.Random(time.perf_counter_ns()).randbytes(32),
            "max_frame": 64 << 20,
            "schema_hash": 0,
            "key_id": "",
            "name": "stranger",
            "client_address": "",
            "cluster_address": "",
        } | fields
        self._keys: SessionKeys | None = None
        self._sent = 0

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self.events += self._decoder.feed(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    @property
    def messages(self) -> list[Any]:
        """What it was sent, whatever came with it."""
        return [each.message if isinstance(each, Extended) else each for each in self.events]

    @property
    def errors(self) -> list[int]:
        """The codes of the errors that it was told."""
        return [each.error_code for each in self.messages if isinstance(each, GenericError)]

    async def said(self, cls: type[Any]) -> Any:
        """Return the first message of a class that it was sent."""
        await until(lambda: self.lost or any(isinstance(each, cls) for each in self.messages))
        found = [each for each in self.messages if isinstance(each, cls)]
        assert found, f"closed after {self.events}"
        return found[0]

    def hello(self, **fields: Any) -> bytes:
        """Return its Hello."""
        return Hello(**(self._fields | fields)).encode_frame()

    async def greet(self, credential: NodeCredential | None = None) -> bytes:
        """Say Hello; return the proof that the node wants now, as a frame, or nothing where there is no key."""
        hello = self.hello(key_id=credential.key_id if credential is not None else "")
        self.transport.write(hello)
        reply = await self.said(HelloReply)
        if credential is None:
            return b""
        frame = frames_of(self.data)[0]
        self._keys = derive_keys(credential.key, self._fields["nonce"], reply.nonce, hello, frame)
        return AuthProof(proof(self._keys, DIALLER)).encode_frame()

    async def link(self, credential: NodeCredential | None = None) -> Stranger:
        """Shake hands."""
        self.transport.write(await self.greet(credential))
        if credential is not None:
            assert (await self.said(AuthResult)).status == 0
        self.events.clear()
        return self

    def frame(self, message: Message, extension: Extension | None = None) -> bytes:
        """Return a frame, signed where it has keys."""
        return self.raw(message.TYPE, encode_extended(message, extension or Extension())[BODY_AT:])

    def raw(self, message_type: int, payload: bytes) -> bytes:
        """Return a frame of any payload, signed where it has keys."""
        if self._keys is None:
            return reframed(b"HCRA\2" + bytes((message_type,)) + bytes(8), payload)
        signed = sign(self._keys.dialler, self._sent, message_type, bytes((payload[0] | 0x40,)) + payload[1:])
        self._sent += 1
        return signed

    def send(self, message: Message, extension: Extension | None = None) -> None:
        self.transport.write(self.frame(message, extension))


async def approach(node: LinkedNode, stranger: Stranger | None = None, **fields: Any) -> Stranger:
    """Return a connection to a node."""
    stranger = stranger or Stranger(**fields)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", node.port), stranger)
    return stranger
