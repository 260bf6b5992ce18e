"""A port without TLS, which says so when somebody speaks TLS to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from hypercache.net.flood import FloodGate
from hypercache.net.tls_faults import looks_like_tls

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_log = Logger()


class PlainPort(Factory):
    """Looks at the first bytes of each connection, then gets out of the way: later reads cost nothing.

    Args:
        wrapped: the factory of the port.
        section: its name in the log, ``resp``.
        clock: the reactor.

    Attributes:
        refused: how many spoke TLS.
    """

    noisy = False

    def __init__(self, wrapped: Any, section: str, clock: Any) -> None:
        self._wrapped = wrapped
        self._section = section
        self.refused = 0
        self._reports = FloodGate(_log, clock, f"connections with TLS to the plain port {section}")

    def doStart(self) -> None:
        """Start the factory of the port."""
        self._wrapped.doStart()
        super().doStart()

    def doStop(self) -> None:
        """Stop it."""
        self._wrapped.doStop()
        super().doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return the protocol of a new connection, which meets its first bytes here."""
        protocol: Any = self._wrapped.buildProtocol(addr)
        if protocol is not None:
            # The instance's own stand before the class's until they have done their work.
            protocol.makeConnection = lambda transport: self._meet(protocol, transport)
        return protocol

    def _meet(self, protocol: Any, transport: Any) -> None:
        del protocol.makeConnection
        protocol.dataReceived = lambda data: self._first(protocol, transport, data)
        protocol.makeConnection(transport)

    def _first(self, protocol: Any, transport: Any, data: bytes) -> None:
        del protocol.dataReceived
        if not looks_like_tls(data) or ISSLTransport.providedBy(transport):
            protocol.dataReceived(data)
            return
        self.refused += 1
        self._reports.error(
            "{section}: {address} speaks TLS, and this port does not: {section}_tls.certificate is not set",
            section=self._section,
            address=shown(transport.getPeer()),
        )
        transport.abortConnection()


def shown(address: Any) -> str:
    """Return an address for a log line."""
    host = getattr(address, "host", None)
    if host is None:
        return str(getattr(address, "name", None) or address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
