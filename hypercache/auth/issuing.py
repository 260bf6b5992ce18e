"""A certificate authority for one cluster: it makes certificates for nodes and for clients.

Pure: keys and certificates are PEM, and time is an argument; who calls keeps them in files.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hypercache.auth.certificates import node_uri
from hypercache.errors import ConfigurationError
from hypercache.limits import AUTHORITY_LIFE_DAYS, CERTIFICATE_BACKDATE_SECONDS, CERTIFICATE_LIFE_DAYS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.auth.handshake import CertificateIdentity

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
"""The host names in a node's certificate where none is given."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_HOST: Final = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)


class Issued(msgspec.Struct, frozen=True):
    """A certificate with its key.

    Attributes:
        certificate: PEM.
        key: PEM, PKCS #8, not encrypted.
    """

    certificate: bytes
    key: bytes

    @property
    def valid_to(self) -> float:
        """When it ends, in Unix seconds."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc.timestamp()


def make_authority(name: str, now: float, *, days: float = AUTHORITY_LIFE_DAYS) -> Issued:
    """Return a new authority, which vouches for itself.

    Args:
        name: its common name.
        now: Unix seconds.
        days: for how long it is valid.

    Raises:
        ConfigurationError: the name is none.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    usage = _key_usage(signs_certificates=True)
    builder = (
        _builder(subject, subject, key, *_life(now, days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return _issued(builder, key, key)


class Authority:
    """An authority that makes certificates.

    Args:
        issued: its own certificate and key.

    Raises:
        ConfigurationError: they are no certificate and key, do not belong together, or are no authority's.
    """

    def __init__(self, issued: Issued) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(issued.certificate)
            key = load_pem_private_key(issued.key, None)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"the authority's certificate or key is damaged or encrypted: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError("the authority's key is for no elliptic curve, and only those are made here")
        if key.public_key() != self._certificate.public_key():
            raise ConfigurationError("the authority's certificate and key do not belong together")
        self._key = key
        try:
            constraints = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            key_id = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise ConfigurationError("the certificate is no authority's: it may not sign others")
        self._key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)

    def issue_node(
        self, identity: CertificateIdentity, now: float, *, hosts: Iterable[str] = LOCAL_HOSTS, days: float = CERTIFICATE_LIFE_DAYS
    ) -> Issued:
        """Return the certificate of a node, for all its ports: as a server, and as a client of other nodes.

        Args:
            identity: whom it names.
            now: Unix seconds.
            hosts: names and addresses under which clients reach it.
            days: for how long it is valid; never longer than the authority.

        Raises:
            ConfigurationError: a host is neither name nor address, or the authority has ended.
        """
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(node_uri(identity)), *map(_host, hosts)]
        uses = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        return self._issue(f"node {identity.node_id}", names, uses, now, days)

    def issue_client(self, name: str, now: float, *, days: float = CERTIFICATE_LIFE_DAYS) -> Issued:
        """Return the certificate of a client: it is no server's, and names no node.

        Args:
            name: its common name.
            now: Unix seconds.
            days: for how long it is valid; never longer than the authority.

        Raises:
            ConfigurationError: the name is none, or the authority has ended.
        """
        # Some verifiers take no certificate without an alternative name.
        names: list[x509.GeneralName] = [x509.DirectoryName(_subject(name))]
        return self._issue(name, names, (ExtendedKeyUsageOID.CLIENT_AUTH,), now, days)

    def _issue(
        self, name: str, names: list[x509.GeneralName], uses: Iterable[x509.ObjectIdentifier], now: float, days: float
    ) -> Issued:
        start, end = _life(now, days)
        end = min(end, self._certificate.not_valid_after_utc)
        if end.timestamp() <= now:
            raise ConfigurationError(f"the authority's certificate ended at {end:%Y-%m-%d}; make a new authority")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_subject(name), self._certificate.subject, key, start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(self._key_id, critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return _issued(builder, key, self._key)


def _subject(name: str) -> x509.Name:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a certificate; use up to 64 letters, digits, spaces and . _ @ -, a letter or digit first"
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise ConfigurationError(f"{host!r} is neither a host name nor an IP address") from None
        return x509.DNSName(host)


def _life(now: float, days: float) -> tuple[datetime, datetime]:
    moment = datetime.fromtimestamp(int(now), UTC)
    # Somebody's clock is behind.
    return moment - timedelta(seconds=CERTIFICATE_BACKDATE_SECONDS), moment + timedelta(days=days)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey) -> Issued:
    certificate = builder.sign(signer, hashes.SHA256())
    return Issued(certificate.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
