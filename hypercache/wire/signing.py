"""Session keys, proofs and frame signatures (wire.md, section 3), and the seed's checksum for stored payloads."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hypercache.errors import SignatureError
from hypercache.limits import HEADER_BYTES, SIGNATURE_BYTES
from hypercache.wire.header import EXTENDED_VERSION, frame

DIALLER: Final = 0
LISTENER: Final = 1
KEY_BYTES: Final = 32
_INFO: Final = b"hypercache v2 "
_SIGNED_HEADER_BYTES: Final = 10
_SEQUENCE: Final = struct.Struct(">Q")
_SECURE_CHECKSUM_BYTES: Final = 8


class SessionKeys(msgspec.Struct, frozen=True):
    """The keys of one link.

    Attributes:
        dialler: signs what the dialler sends.
        listener: signs what the listener sends.
        auth: makes the proofs.
        transcript: SHA-256 of both Hellos as sent.
    """

    dialler: bytes
    listener: bytes
    auth: bytes
    transcript: bytes


def derive_keys(shared_key: bytes, dialler_nonce: bytes, listener_nonce: bytes, hello: bytes, hello_reply: bytes) -> SessionKeys:
    """Return the keys of a link.

    Args:
        shared_key: 32 bytes that both sides hold.
        dialler_nonce: from Hello.
        listener_nonce: from HelloReply.
        hello: the Hello frame as sent.
        hello_reply: the HelloReply frame as sent.
    """
    transcript = hashlib.sha256(hello + hello_reply).digest()

    def key(label: bytes) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=dialler_nonce + listener_nonce, info=_INFO + label + transcript).derive(shared_key)

    return SessionKeys(key(b"d2l"), key(b"l2d"), key(b"auth"), transcript)


def proof(keys: SessionKeys, role: int, tls_binding: bytes = b"") -> bytes:
    """Return the proof of one side.

    Args:
        keys: the link's keys.
        role: `DIALLER` or `LISTENER`.
        tls_binding: the 32 bytes of EXPORTER-Channel-Binding; empty without TLS.
    """
    return hmac.digest(keys.auth, bytes((role,)) + keys.transcript + tls_binding, "sha256")


def verify_proof(keys: SessionKeys, role: int, given: bytes, tls_binding: bytes = b"") -> bool:
    """Say, in constant time, whether a proof is that side's."""
    return hmac.compare_digest(proof(keys, role, tls_binding), given)


def signature(key: bytes, sequence: int, header: bytes, unsigned: bytes) -> bytes:
    """Return the 16 bytes that end a signed payload.

    Args:
        key: the sender's session key.
        sequence: the frame's number in its direction.
        header: the frame's header, of which the first 10 bytes count: the length is the signed payload's.
        unsigned: the payload without the signature.
    """
    return hmac.digest(key, _SEQUENCE.pack(sequence) + header[:_SIGNED_HEADER_BYTES] + unsigned, "sha256")[:SIGNATURE_BYTES]


def sign(key: bytes, sequence: int, message_type: int, unsigned: bytes) -> bytes:
    """Return a signed version 0x02 frame.

    Args:
        key: the sender's session key.
        sequence: the frame's number in its direction.
        message_type: the type byte.
        unsigned: extension (with the SIGNED flag) and body.
    """
    header = frame(EXTENDED_VERSION, message_type, unsigned + bytes(SIGNATURE_BYTES))[:_SIGNED_HEADER_BYTES]
    return frame(EXTENDED_VERSION, message_type, unsigned + signature(key, sequence, header, unsigned))


def verify(key: bytes, sequence: int, signed_frame: bytes) -> None:
    """Check the signature of a whole version 0x02 frame.

    Raises:
        SignatureError: it is missing or does not match.
    """
    payload = signed_frame[HEADER_BYTES:]
    if len(payload) <= SIGNATURE_BYTES:
        raise SignatureError("the frame is too short to be signed")
    expected = signature(key, sequence, signed_frame[:HEADER_BYTES], payload[:-SIGNATURE_BYTES])
    if not hmac.compare_digest(expected, payload[-SIGNATURE_BYTES:]):
        raise SignatureError(f"the signature of frame {sequence} does not match")


def secure_checksum(payload: bytes, key: bytes) -> bytes:
    """Return the seed's keyed checksum of 8 bytes, for payloads that a handler stores."""
    return hmac.digest(key, payload, "sha256")[:_SECURE_CHECKSUM_BYTES]
