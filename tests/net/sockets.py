"""What the tests of the doors share: real sockets on this reactor, conditions with deadlines, self-signed certificates."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 10.0


async def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for a condition; fail at a deadline."""
    clock: Any = reactor
    deadline = clock.seconds() + seconds
    while not condition():
        assert clock.seconds() < deadline, "the condition did not come true in time"
        await deferLater(clock, 0.002)


async def turns(count: int = 3) -> None:
    """Let the reactor turn a few times."""
    for _ in range(count):
        await deferLater(reactor, 0.001)


class Remote(Protocol):
    """The far side of a connection: keeps what comes, and may be told not to read."""

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.lost = False
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True
        self.ended.callback(None)

    async def take(self, count: int, seconds: float = SECONDS) -> bytes:
        """Return the next ``count`` bytes."""
        await until(lambda: len(self.data) >= count, seconds)
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken


class Doors:
    """Ports and connections of one test; `close` ends them."""

    def __init__(self) -> None:
        self._ports: list[Any] = []
        self._remotes: list[Remote] = []

    async def listen(self, description: str, factory: Any, using: Any = reactor) -> Any:
        """Listen at an endpoint string; return the port."""
        port = await serverFromString(using, description).listen(factory)
        self._ports.append(port)
        return port

    async def connect(self, description: str, protocol: Any = None, using: Any = reactor) -> Any:
        """Connect to an endpoint string."""
        remote = protocol or Remote()
        await connectProtocol(clientFromString(using, description), remote)
        self._remotes.append(remote)
        return remote

    async def dial(self, port: Any) -> Any:
        """Connect to a port."""
        host = port.getHost()
        family = "tcp:host=\\:\\:1" if ":" in host.host else "tcp:host=127.0.0.1"
        return await self.connect(f"{family}:port={host.port}")

    def forget(self, port: Any) -> None:
        """Leave a port alone: the test has closed it."""
        self._ports.remove(port)

    async def close(self) -> None:
        for remote in self._remotes:
            if remote.transport is not None and not getattr(remote, "lost", False):
                remote.transport.abortConnection()
        for port in self._ports:
            await port.stopListening()
        await turns()


def write_certificate(directory: Path) -> Path:
    """Write a self-signed certificate and its key; return the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return path
