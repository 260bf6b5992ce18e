"""The far side of TLS connections: of this package's own making, or with OpenSSL as a test sets it up."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.net.sockets import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercache.net.tls import PortTLS
    from tests.certificates import Files
    from tests.net.sockets import Doors

PLACE = "tcp:0:interface=127.0.0.1"
OLDER_CIPHERS = b"DEFAULT@SECLEVEL=0"
VERSIONS = {"1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


class Near(Protocol):
    """The listener's side: says back what it reads."""

    transport: Any

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.reads.append(data)
        self.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason


class Nears(Factory):
    """Makes them, and remembers them."""

    noisy = False

    def __init__(self) -> None:
        self.made: list[Near] = []

    def buildProtocol(self, addr: Any) -> Near:
        near = Near()
        self.made.append(near)
        return near


@implementer(IHandshakeListener)
class TLSRemote(Remote):
    """A remote that knows when TLS has shaken hands, and why the connection ended."""

    def __init__(self) -> None:
        super().__init__()
        self.secured = False
        self.reason: Any = None

    def handshakeCompleted(self) -> None:
        self.secured = True

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason
        super().connectionLost(reason)


class One(Factory):
    """Makes a connection that of one protocol."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        return self._protocol


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803 - Twisted's name
        return SSL.Connection(self._context, None)


def context(trusted: Files, shown: Files | None = None, *, version: str = "1.3", ciphers: bytes | None = None) -> SSL.Context:
    """Return what a client speaks TLS with: one version, the authority of some files, and the certificate of others, or none."""
    made = SSL.Context(SSL.TLS_METHOD)
    if ciphers is not None:
        made.set_cipher_list(ciphers)
    made.set_min_proto_version(VERSIONS[version])
    made.set_max_proto_version(VERSIONS[version])
    store = made.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(x509.load_pem_x509_certificate(trusted.ca.read_bytes())))
    made.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, code, depth, is_good: bool(is_good))
    if shown is not None:
        made.use_certificate(x509.load_pem_x509_certificate(shown.certificate.read_bytes()))
        key: Any = load_pem_private_key(shown.key.read_bytes(), None)
        made.use_privatekey(key)
    return made


async def connect(doors: Doors, port: Any, factory: Any, remote: Any) -> Any:
    """Connect to a port over TLS; the handshake may still fail."""
    await doors.connect(f"tcp:host=127.0.0.1:port={port.getHost().port}", factory.buildProtocol(None))
    return remote


async def dial(doors: Doors, port: Any, tls: PortTLS, remote: Any = None) -> Any:
    """Connect to a port as a node would."""
    made = remote or TLSRemote()
    return await connect(doors, port, tls.client(One(made), "127.0.0.1"), made)


async def dial_with(doors: Doors, port: Any, made: SSL.Context, remote: Any = None) -> Any:
    """Connect to a port with OpenSSL as the test has set it up."""
    far = remote or TLSRemote()
    return await connect(doors, port, TLSMemoryBIOFactory(_Creator(made), True, One(far)), far)


@contextmanager
def logged(word: str = "") -> Iterator[list[str]]:
    """Collect the lines of the log that hold a word, as they will have been when the block ends."""
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    shown = [formatEvent(event) for event in events]
    lines += [line for line in shown if word in line and not line.startswith(("Starting", "Stopping"))]
