"""How TLS failures read, and what first bytes are taken for."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Codes
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from hypercache.auth.certificates import identity_in, node_uri
from hypercache.auth.handshake import CertificateIdentity
from hypercache.net.tls_faults import TLSRefusedError, explain, looks_like_tls, plain_text, verdict
from hypercache.wire.header import MAGIC


def queue(*reasons: str) -> Failure:
    return Failure(SSL.Error([("SSL routines", "", reason) for reason in reasons]))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionDone(),
        ConnectionLost(),
        SSL.SysCallError(-1, "Unexpected EOF"),
        SSL.ZeroReturnError(),
        SSL.Error([]),
        SSL.Error(),
        ValueError("no"),
    ],
)
def test_what_is_no_matter_of_tls_is_not_explained(error: Exception) -> None:
    assert explain(Failure(error)) is None


def test_a_reason_of_this_sides_own_is_the_explanation() -> None:
    assert explain(Failure(TLSRefusedError("it is late"))) == "it is late"
    assert str(TLSRefusedError("it is late")) == "it is late"


@pytest.mark.parametrize("prefix", ["tlsv1", "tlsv13", "sslv3", "tls", "ssl/tls"])
def test_alerts_read_the_same_in_each_version_of_openssl(prefix: str) -> None:
    assert explain(queue(f"{prefix} alert unknown ca")) == "it does not know the CA of this side's certificate"
    assert explain(queue(f"{prefix} alert user cancelled")) == "it ended TLS with the alert: user cancelled"


def test_the_first_reason_that_is_known_counts_and_unknown_ones_are_quoted() -> None:
    known = "it speaks plain HTTP, and this port speaks TLS"
    assert explain(queue("http request", "record layer failure")) == known
    assert explain(queue("record layer failure", "http request")) == known
    assert explain(queue("one", "other")) == "OpenSSL says: one; other"


@pytest.mark.parametrize(
    ("data", "is_tls"),
    [
        (b"\x16\x03\x01\x02\x00", True),
        (b"\x16", True),
        (b"\x16\x03", True),
        (b"\x16\x02", False),
        (b"HCRA", False),
        (b"\x15\x03", False),
    ],
)
def test_a_handshake_is_known_by_its_first_bytes(data: bytes, is_tls: bool) -> None:
    assert looks_like_tls(data) is is_tls


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (MAGIC, "plain HyperCache frames"),
        (b"*1", "plain RESP"),
        (b"*x", "no TLS"),
        (b"PRI * HTTP/2.0", "plain HTTP"),
        (b"\0", "no TLS"),
    ],
)
def test_plain_text_is_named(data: bytes, what: str) -> None:
    assert plain_text(data, dialled=False) == f"it speaks {what}, and this port speaks TLS"
    assert plain_text(data, dialled=True) == f"it answers with {what}: its port is not one for TLS"


def test_a_listener_may_begin_with_an_alert_and_a_dialler_may_not() -> None:
    assert plain_text(b"\x15\x03\x03", dialled=True) is None
    assert plain_text(b"\x15\x03\x03", dialled=False) is not None
    assert plain_text(b"\x16\x03\x01", dialled=True) is plain_text(b"\x16\x03\x01", dialled=False) is None


# Certificates


def certificate(*uris: str, name: str = "x") -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2025, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC))
    )
    if uris:
        names = x509.SubjectAlternativeName([*map(x509.UniformResourceIdentifier, uris), x509.DNSName("host")])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


def test_what_a_stranger_calls_itself_does_not_break_the_log() -> None:
    text = verdict(certificate(name="evil\nline \x1b[31m" + "x" * 40), Codes.ERR_CERT_HAS_EXPIRED, 0, "resp_tls.ca")
    assert text.isascii()
    assert text.isprintable()
    assert text.endswith(" expired at 2026-01-02 03:04:05 UTC")


@pytest.mark.parametrize(
    ("code", "depth", "text"),
    [
        (Codes.ERR_CERT_NOT_YET_VALID, 0, "its certificate (CN=x) is not valid before 2025-01-02 03:04:05 UTC; is a clock wrong?"),
        (Codes.ERR_CERT_HAS_EXPIRED, 1, "a CA of its certificate (CN=x) expired at 2026-01-02 03:04:05 UTC"),
        (Codes.ERR_CERT_REVOKED, 0, "its certificate (CN=x) is not valid: cert revoked"),
        (123456, 0, "its certificate (CN=x) is not valid: OpenSSL's verdict 123456"),
    ],
)
def test_verdicts_are_sentences(code: int, depth: int, text: str) -> None:
    assert verdict(certificate(), code, depth, "resp_tls.ca") == text


HIGHEST = (1 << 64) - 1


def test_a_certificate_names_the_node_of_its_uri() -> None:
    for identity in (CertificateIdentity(1, 2), CertificateIdentity(HIGHEST, HIGHEST)):
        assert identity_in(certificate("https://example.org", node_uri(identity))) == identity


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("https://example.org",),
        ("hypercache://1",),
        ("hypercache://1/2/3",),
        ("hypercache://1/2?x",),
        ("hypercache://01/2",),
        ("hypercache://1/02",),
        ("hypercache://0/2",),
        ("hypercache://1/0",),
        ("hypercache://+1/2",),
        ("hypercache://1/0x2",),
        ("HYPERCACHE://1/2",),
        (f"hypercache://1/{HIGHEST + 1}",),
        ("hypercache://1/2", "hypercache://1/3"),
        ("hypercache://1/2", "HyperCache://1/3"),
        ("hypercache://1/2\n",),
    ],
)
def test_a_certificate_that_names_no_one_node_names_none(uris: tuple[str, ...]) -> None:
    assert identity_in(certificate(*uris)) is None
