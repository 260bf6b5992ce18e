"""Both sides' view of one link."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from hypercache.auth.credentials import ANY_NODE, Keyring, NodeCredential
from hypercache.auth.handshake import CertificateIdentity, Handshake
from hypercache.auth.hmac import SharedKeyProvider
from hypercache.wire import Capability, NodeType
from hypercache.wire.messages import Hello, HelloReply

if TYPE_CHECKING:
    from collections.abc import Iterable

NOW = 1_800_000_000.0
SKEW = 60.0
DIALLER_ID = 5
LISTENER_ID = 9
CLUSTER = 77
BINDING = bytes(range(32))


def key(
    key_id: str = "main", node_id: int = ANY_NODE, valid_from: float = NOW - 1000, valid_to: float = NOW + 1000, seed: int = 1
) -> NodeCredential:
    return NodeCredential(key_id, node_id, random.Random(seed).randbytes(32), valid_from, valid_to)


def provider(
    credentials: Iterable[NodeCredential], node_id: int = LISTENER_ID, now: float = NOW, *, signing: bool = True
) -> SharedKeyProvider:
    ring = Keyring(credentials)
    return SharedKeyProvider(lambda: ring, node_id, lambda: now, skew=SKEW, signing=signing)


def greeting(cls: type[Any], node_id: int, key_id: str, seed: int, **changes: Any) -> Any:
    fields: dict[str, Any] = {
        "lowest_version": 1,
        "highest_version": 2,
        "capabilities": int(Capability.SIGNING | Capability.STAMPS),
        "node_id": node_id,
        "boot": 3,
        "cluster_id": CLUSTER,
        "node_type": NodeType.CACHE,
        "clock": 1 << 40,
        "nonce": random.Random(seed).randbytes(32),
        "max_frame": 1 << 20,
        "schema_hash": 1,
        "key_id": key_id,
        "name": f"n{node_id}",
        "client_address": "",
        "cluster_address": f"127.0.0.1:{7000 + node_id}",
    }
    return cls(**(fields | changes))


def handshakes(
    key_id: str = "main",
    *,
    secure: bool = False,
    now: float = NOW,
    seed: int = 1,
    hello: dict[str, Any] | None = None,
    reply: dict[str, Any] | None = None,
    certificate: CertificateIdentity | None = None,
) -> tuple[Handshake, Handshake]:
    """Return the dialler's and the listener's view; a certificate is the dialler's, as the listener sees it."""
    said = greeting(Hello, DIALLER_ID, key_id, 2 * seed, **(hello or {}))
    answered = greeting(HelloReply, LISTENER_ID, key_id, 2 * seed + 1, **(reply or {}))
    dialler = Handshake(
        dialled=True,
        hello=said,
        hello_frame=said.encode_frame(),
        reply=answered,
        reply_frame=answered.encode_frame(),
        certificate=None,
        secure=secure,
        binding=BINDING if secure else b"",
        now=now,
    )
    return dialler, msgspec.structs.replace(dialler, dialled=False, certificate=certificate)
