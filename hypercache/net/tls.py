"""TLS of one port: its certificates, read again when they change, and the connections made with them."""

from __future__ import annotations

import ipaddress
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.auth.certificates import identity_in
from hypercache.errors import ConfigurationError
from hypercache.limits import (
    HANDSHAKES_MAX_COUNT,
    TLS_CHECK_SECONDS,
    TLS_EXPIRY_CHECK_SECONDS,
    TLS_EXPIRY_WARNING_SECONDS,
    TLS_HANDSHAKE_SECONDS,
)
from hypercache.net.file_watch import FileWatch
from hypercache.net.flood import FloodGate
from hypercache.net.plain_port import shown
from hypercache.net.tls_context import check_settings, client_context, read_certificates, server_context
from hypercache.net.tls_faults import explain, looks_like_tls
from hypercache.net.tls_transport import Handshakes, TLSFactory

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from hypercache.auth.handshake import CertificateIdentity
    from hypercache.config import TLSSettings

__all__ = ["PortTLS", "channel_binding", "explain", "looks_like_tls", "peer_identity", "port_tls"]

_BINDING_LABEL: Final = b"EXPORTER-Channel-Binding"
_BINDING_BYTES: Final = 32

_log = Logger()


class PortTLS:
    """The TLS of one port.

    Args:
        settings: of the port.
        section: their name, ``cluster_tls``.
        clock: the reactor, for time-outs and for looking at the files.
        wall: returns Unix seconds.
        dials: whether this side also opens connections: then a CA is needed in any case.
        handshakes_max: of so many unfinished handshakes the oldest ends when another begins.
        handshake_timeout: seconds that one may take.

    Attributes:
        identity: the node that the port's own certificate names; None where it names none.
        failures: how many connections ended because of TLS, those of the cluster's links apart, which count themselves.
        handshakes: those that are not finished, those of the cluster's links apart.
        reloads: how often new certificates were taken.

    Raises:
        ConfigurationError: the settings or the files will not do; the text says what to do.
    """

    def __init__(
        self,
        settings: TLSSettings,
        section: str,
        *,
        clock: Any,
        wall: Callable[[], float] = time.time,
        dials: bool = False,
        handshakes_max: int = HANDSHAKES_MAX_COUNT,
        handshake_timeout: float = TLS_HANDSHAKE_SECONDS,
    ) -> None:
        check_settings(settings, section, dials=dials)
        self._settings = settings
        self._section = section
        self._clock = clock
        self._wall = wall
        self._dials = dials
        self.failures = 0
        self.reloads = 0
        self.handshakes = Handshakes(clock, handshakes_max, handshake_timeout)
        self._reports = FloodGate(_log, clock, f"TLS failures at {section}")
        self._reported = ""
        self._expiry = LoopingCall(self._warn_of_end)
        self._expiry.clock = clock
        self.identity: CertificateIdentity | None = None
        # Before the files are read: a change in between is noticed.
        paths = [settings.certificate, settings.key, *([settings.ca] if settings.ca else [])]
        self._watch = FileWatch(paths, clock=clock, interval=TLS_CHECK_SECONDS, changed=self._reload)
        self._load()

    def start(self) -> None:
        """Begin to look whether the files change, and whether the certificate ends soon."""
        self._watch.start()
        if not self._expiry.running:
            self._expiry.start(TLS_EXPIRY_CHECK_SECONDS)

    def stop(self) -> None:
        """Look no more; connections stay."""
        self._watch.stop()
        if self._expiry.running:
            self._expiry.stop()

    def server(self, factory: Any) -> TLSFactory:
        """Return a factory that speaks TLS as a listener and hands what it decrypts to the protocols of another."""
        return self._wrap(_Accepting(self), factory, dialled=False)

    def client(self, factory: Any, host: str) -> TLSFactory:
        """Return a factory that speaks TLS as a dialler.

        The listener's certificate must be signed by one of the CAs. Which node it names is for the link to check; its host names
        mean nothing.

        Args:
            factory: makes the protocols.
            host: where the connection goes, for whoever routes by it on the way.

        Raises:
            ConfigurationError: this port was not made to dial.
        """
        if not self._dials:
            raise ConfigurationError(f"{self._section}: is for a port that only listens")
        return self._wrap(_Opening(self, _server_name(host)), factory, dialled=True)

    def _wrap(self, creator: Any, factory: Any, *, dialled: bool) -> TLSFactory:
        return TLSFactory(creator, factory, dialled=dialled, clock=self._clock, handshakes=self.handshakes, report=self._report)

    # Certificates

    def _load(self) -> None:
        """Take the files as they are.

        Raises:
            ConfigurationError: they will not do; nothing has changed.
        """
        settings, section = self._settings, self._section
        certificates = read_certificates(settings, section)
        own = certificates.chain[0]
        identity = identity_in(own)
        if self.identity is not None and identity != self.identity:
            named = f"node {identity.node_id} of cluster {identity.cluster_id}" if identity is not None else "no node"
            raise ConfigurationError(
                f"{section}.certificate: {settings.certificate} names {named}, and this is node {self.identity.node_id} of cluster "
                f"{self.identity.cluster_id}; give the node a certificate of its own"
            )
        accepting = server_context(certificates, settings, section)
        opening = client_context(certificates, settings, section) if self._dials else None
        self.accepting, self.opening, self.identity = accepting, opening, identity
        self._subject = own.subject.rfc4514_string()
        self._end = own.not_valid_after_utc
        if Path(settings.key).stat().st_mode & stat.S_IROTH:
            _log.warn("{section}.key: every user of this machine can read {file}", section=section, file=settings.key)

    def _warn_of_end(self) -> None:
        left = self._end.timestamp() - self._wall()
        if left < TLS_EXPIRY_WARNING_SECONDS:
            _log.warn(
                "{section}.certificate: {subject} {ends} at {end}; put a new one in its place",
                section=self._section,
                subject=self._subject,
                ends="ends" if left > 0 else "has ended",
                end=_shown_time(self._end),
            )

    def _reload(self) -> bool:
        try:
            self._load()
        except ConfigurationError as error:
            # Once a fault; it is tried again at each look.
            if str(error) != self._reported:
                self._reported = str(error)
                _log.error("new certificates are not taken, the old ones stay in use: {reason}", reason=str(error))
            return False
        self._reported = ""
        self.reloads += 1
        _log.info(
            "{section}: took new certificates: {subject}, until {end}; connections that are open stay as they are",
            section=self._section,
            subject=self._subject,
            end=_shown_time(self._end),
        )
        return True

    def _report(self, address: Any, text: str) -> None:
        """Log why the TLS of a connection failed; of a flood only the beginning."""
        self.failures += 1
        self._reports.error(
            "{section}: TLS with {address} failed: {reason}", section=self._section, address=shown(address), reason=text
        )


@implementer(IOpenSSLServerConnectionCreator)
class _Accepting:
    """Makes the listener's side of connections, with the certificates of the moment."""

    def __init__(self, port: PortTLS) -> None:
        self._port = port

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803 - Twisted's name
        return SSL.Connection(self._port.accepting, None)


@implementer(IOpenSSLClientConnectionCreator)
class _Opening:
    """Makes the dialler's side of connections, with the certificates of the moment."""

    def __init__(self, port: PortTLS, server_name: bytes | None) -> None:
        self._port = port
        self._server_name = server_name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:  # noqa: N803 - Twisted's name
        assert self._port.opening is not None
        connection = SSL.Connection(self._port.opening, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        return connection


def port_tls(settings: TLSSettings, section: str, *, clock: Any, dials: bool = False) -> PortTLS | None:
    """Return the TLS of a port; None where it has no certificate.

    Args:
        settings: of the port.
        section: their name, ``cluster_tls``.
        clock: the reactor.
        dials: whether this side also opens connections.

    Raises:
        ConfigurationError: the settings or the files will not do; the text says what to do.
    """
    check_settings(settings, section, dials=dials)
    return PortTLS(settings, section, clock=clock, dials=dials) if settings.certificate else None


def peer_identity(transport: Any) -> CertificateIdentity | None:
    """Return the node that the peer's certificate names; None without TLS, without a certificate, or where it names no node.

    TLS has verified the certificate by the time that anything was read, or the connection would have ended.

    Args:
        transport: of a protocol.
    """
    connection = _connection_of(transport)
    certificate = connection.get_peer_certificate(as_cryptography=True) if connection is not None else None
    return identity_in(certificate) if certificate is not None else None


def channel_binding(transport: Any) -> bytes:
    """Return 32 bytes that both ends of a TLS connection know, and nobody else, of no other connection (RFC 9266).

    Args:
        transport: of a protocol whose TLS has shaken hands; without TLS there are no bytes.
    """
    connection = _connection_of(transport)
    return connection.export_keying_material(_BINDING_LABEL, _BINDING_BYTES, b"") if connection is not None else b""


def _connection_of(transport: Any) -> SSL.Connection | None:
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    return handle if isinstance(handle, SSL.Connection) else None


def _server_name(host: str) -> bytes | None:
    """Return a host's name as TLS carries it; addresses are not sent (RFC 6066, 3)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return None
    try:
        return host.encode("idna") or None
    except UnicodeError:
        return None


def _shown_time(moment: datetime) -> str:
    """Return a moment for a log line."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
