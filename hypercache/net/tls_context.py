"""From the files of a port to OpenSSL's contexts, with a sentence for whatever may be wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from hypercache.errors import ConfigurationError
from hypercache.limits import TLS_FILE_MAX_BYTES
from hypercache.net.tls_faults import TLSRefusedError, verdict

if TYPE_CHECKING:
    from hypercache.config import TLSSettings

_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption alone. TLS 1.3 has no others."""

_OPTIONS: Final = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET
_MINIMA: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


class Certificates(msgspec.Struct, frozen=True):
    """What the files of a port hold.

    Attributes:
        chain: the port's own certificate, then those of its intermediate authorities.
        key: its private key.
        authorities: who may sign the peers' certificates.
    """

    chain: tuple[Any, ...]
    key: Any
    authorities: tuple[Any, ...]


def check_settings(settings: TLSSettings, section: str, *, dials: bool) -> None:
    """Refuse settings that contradict each other.

    Args:
        settings: of the port.
        section: its name, for the errors.
        dials: whether this side also opens connections.

    Raises:
        ConfigurationError: they do; the text says how to go on.
    """
    if not settings.certificate:
        given = [name for name in ("key", "ca") if getattr(settings, name)]
        if given:
            raise ConfigurationError(
                f"{section}.certificate: is missing, while {section}.{given[0]} is set; name the certificate, or leave both out"
            )
        return
    if not settings.key:
        raise ConfigurationError(f"{section}.key: is missing; name the file with the key of {section}.certificate")
    if not settings.ca and settings.clients != "none":
        raise ConfigurationError(
            f"{section}.ca: is missing, and {section}.clients is {settings.clients!r}; name the file with the CAs that sign the "
            f"certificates of who connects, or set {section}.clients = 'none'"
        )
    if not settings.ca and dials:
        raise ConfigurationError(f"{section}.ca: is missing; name the file with the CAs that sign the nodes' certificates")


def read_certificates(settings: TLSSettings, section: str) -> Certificates:
    """Read the files of a port.

    Raises:
        ConfigurationError: one cannot be read, holds something else, or they do not belong together.
    """
    chain = _read_chain(f"{section}.certificate", settings.certificate)
    key = _read_key(f"{section}.key", settings.key)
    if key.public_key() != chain[0].public_key():
        raise ConfigurationError(
            f"{section}.key: {settings.key} is not the key of the first certificate in {settings.certificate}; give the pair that "
            "was made together"
        )
    authorities = _read_chain(f"{section}.ca", settings.ca) if settings.ca else ()
    return Certificates(chain, key, authorities)


def server_context(certificates: Certificates, settings: TLSSettings, section: str) -> SSL.Context:
    """Return the context of connections that are accepted.

    Raises:
        ConfigurationError: OpenSSL does not take the certificates.
    """
    modes = {
        "none": SSL.VERIFY_NONE,
        "optional": SSL.VERIFY_PEER,
        "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    }
    return _context(certificates, settings, section, modes[settings.clients])


def client_context(certificates: Certificates, settings: TLSSettings, section: str) -> SSL.Context:
    """Return the context of connections that are opened: the listener's chain is verified always.

    Raises:
        ConfigurationError: OpenSSL does not take the certificates.
    """
    return _context(certificates, settings, section, SSL.VERIFY_PEER)


def _context(certificates: Certificates, settings: TLSSettings, section: str, mode: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_MINIMA[settings.minimum])
    context.set_cipher_list(_CIPHERS)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # A session that is taken up again is not verified again: a certificate could outlive its end, or its CA.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(section.encode())
    try:
        leaf, *others = certificates.chain
        context.use_certificate(leaf)
        for each in others:
            context.add_extra_chain_cert(each)
        context.use_privatekey(certificates.key)
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError) as error:
        raise ConfigurationError(f"{section}.certificate: OpenSSL refuses {settings.certificate}: {error}") from None
    store = context.get_cert_store()
    assert store is not None
    for each in certificates.authorities:
        store.add_cert(crypto.X509.from_cryptography(each))

    def judge(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, is_good: int) -> bool:
        if not is_good:
            raise TLSRefusedError(verdict(certificate.to_cryptography(), code, depth, f"{section}.ca"))
        return True

    context.set_verify(mode, judge)
    return context


def _read_chain(what: str, name: str) -> tuple[x509.Certificate, ...]:
    data = _read(what, name)
    try:
        chain = tuple(x509.load_pem_x509_certificates(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{what}: {name} holds no certificate in PEM: {error}") from None
    return chain


def _read_key(what: str, name: str) -> Any:
    data = _read(what, name)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ConfigurationError(f"{what}: {name} is encrypted; keep it without a passphrase, readable by the node alone") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{what}: {name} holds no private key in PEM") from None


def _read(what: str, name: str) -> bytes:
    try:
        with Path(name).open("rb") as file:
            data = file.read(TLS_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{what}: {name} cannot be read: {error.strerror}; name another file, or make one with: hypercache certs"
        ) from None
    if len(data) > TLS_FILE_MAX_BYTES:
        raise ConfigurationError(f"{what}: {name} has more than {TLS_FILE_MAX_BYTES} bytes; is it the right file?")
    return data
