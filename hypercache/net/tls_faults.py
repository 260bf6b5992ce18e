"""What went wrong with TLS, in a sentence for the operator."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from OpenSSL.SSL import X509VerificationCodes as Codes

from hypercache.errors import AuthenticationError
from hypercache.wire.header import MAGIC

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, Name
    from twisted.python.failure import Failure

_SUBJECT_MAX_CHARACTERS: Final = 100
_HANDSHAKE_RECORD: Final = 0x16
_ALERT_RECORD: Final = 0x15
_HTTP: Final = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|PRI) ")
_RESP: Final = re.compile(rb"\*[0-9]")

_REASONS: Final = {
    "unsupported protocol": "it speaks only TLS versions older than the oldest that is allowed here",
    "version too low": "it speaks only TLS versions older than the oldest that is allowed here",
    "wrong version number": "what it sends is no TLS, or of a version that nobody knows",
    "http request": "it speaks plain HTTP, and this port speaks TLS",
    "https proxy request": "it takes this port for an HTTP proxy",
    "peer did not return a certificate": "it shows no certificate, and must",
    "no shared cipher": "no cipher is known to both sides",
    "no suitable signature algorithm": "no signature algorithm is known to both sides",
    "certificate verify failed": "its certificate is not valid here",
    "decryption failed or bad record mac": "a record was changed on the way",
}

_ALERTS: Final = {
    "unknown ca": "it does not know the CA of this side's certificate",
    "decrypt error": "it does not accept this side's certificate; perhaps it is of another CA of the same name",
    "bad certificate": "it does not accept this side's certificate; is a clock wrong?",
    "certificate unknown": "it does not accept this side's certificate",
    "unsupported certificate": "it does not accept this side's certificate for this use",
    "certificate expired": "it says that this side's certificate has expired",
    "certificate revoked": "it says that this side's certificate is revoked",
    "certificate required": "it wants a certificate, and this side shows none",
    "protocol version": "it speaks none of the TLS versions that are allowed here",
    "handshake failure": "it finds no settings in common, or wants a certificate that this side does not show",
}

_FOREIGN: Final = frozenset(
    (
        Codes.ERR_UNABLE_TO_GET_ISSUER_CERT,
        Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        Codes.ERR_CERT_SIGNATURE_FAILURE,
    )
)


class TLSRefusedError(AuthenticationError, SSL.Error):
    """A connection that this side ends because of its TLS; also one of pyOpenSSL's errors, so that it passes through that.

    Args:
        text: why, in a sentence for the log.
    """

    def __init__(self, text: str) -> None:
        # The form of OpenSSL's queue of errors, which Twisted looks into.
        super().__init__([("HyperCache", "", text)])
        self.text = text

    def __str__(self) -> str:
        return self.text


def explain(reason: Failure) -> str | None:
    """Return what TLS has to do with the end of a connection.

    Args:
        reason: what `connectionLost` was given.

    Returns:
        A sentence about the peer ("it ..."); None where the connection did not end because of TLS.
    """
    error = reason.value
    if isinstance(error, TLSRefusedError):
        return error.text
    if not isinstance(error, SSL.Error) or isinstance(error, SSL.SysCallError | SSL.ZeroReturnError):
        return None
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[-1]) for entry in queue]
    for each in reasons:
        _, alert, name = each.partition(" alert ")
        if alert:
            return _ALERTS.get(name, f"it ended TLS with the alert: {name}")
        if each in _REASONS:
            return _REASONS[each]
    return f"OpenSSL says: {'; '.join(reasons)}" if reasons else None


def looks_like_tls(data: bytes) -> bool:
    """Say whether the first bytes of a connection open a TLS handshake.

    Args:
        data: what was read first, one byte or more.
    """
    return data[0] == _HANDSHAKE_RECORD and data[1:2] in (b"", b"\x03")


def plain_text(data: bytes, *, dialled: bool) -> str | None:
    """Return what the first bytes of a TLS connection are instead; None where they may be TLS.

    Args:
        data: what was read first, one byte or more.
        dialled: this side opened the connection: the peer may begin with an alert.
    """
    if looks_like_tls(data) or (dialled and data[0] == _ALERT_RECORD):
        return None
    if data.startswith(MAGIC):
        what = "plain HyperCache frames"
    elif _HTTP.match(data) or data.startswith(b"HTTP/"):
        what = "plain HTTP"
    elif _RESP.match(data):
        what = "plain RESP"
    else:
        what = "no TLS"
    return f"it answers with {what}: its port is not one for TLS" if dialled else f"it speaks {what}, and this port speaks TLS"


def verdict(certificate: Certificate, code: int, depth: int, ca: str) -> str:
    """Return why a peer's certificate is not valid here.

    Args:
        certificate: the one in its chain that is at fault.
        code: OpenSSL's verdict.
        depth: how far up the chain it stands; 0 is the peer's own.
        ca: the setting that names the authorities.
    """
    subject = _shown(certificate.subject)
    which = f"a CA of its certificate ({subject})" if depth else f"its certificate ({subject})"
    if code == Codes.ERR_CERT_HAS_EXPIRED:
        return f"{which} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    if code == Codes.ERR_CERT_NOT_YET_VALID:
        return f"{which} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC; is a clock wrong?"
    if code in _FOREIGN:
        own = "its certificate" if depth else which
        return f"{own} is from an authority ({_shown(certificate.issuer)}) that is none of those in {ca}"
    if code == Codes.ERR_INVALID_PURPOSE:
        return f"{which} is not for this use: servers need serverAuth, clients clientAuth"
    return f"{which} is not valid: {_name_of(code)}"


def _shown(name: Name) -> str:
    """Return a name for a log line; it comes from a peer that nobody vouches for."""
    return ascii(name.rfc4514_string()).strip("'\"")[:_SUBJECT_MAX_CHARACTERS]


def _name_of(code: Any) -> str:
    for name, value in vars(Codes).items():
        if value == code and name.startswith("ERR_"):
            return name.removeprefix("ERR_").replace("_", " ").lower()
    return f"OpenSSL's verdict {code}"
