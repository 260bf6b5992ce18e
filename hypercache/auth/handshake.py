"""What an auth provider is told of a link whose Hellos have been exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from hypercache.wire.messages import Hello, HelloReply


class CertificateIdentity(msgspec.Struct, frozen=True):
    """Whom a certificate names: the URI SAN ``hypercache://<cluster id>/<node id>`` (wire.md, section 4).

    Attributes:
        cluster_id: the cluster.
        node_id: the node.
    """

    cluster_id: int
    node_id: int


class Handshake(msgspec.Struct, frozen=True):
    """Both Hellos of a link, and what TLS says about it.

    Attributes:
        dialled: whether this side opened the connection.
        hello: the dialler's greeting.
        hello_frame: its frame as sent.
        reply: the listener's greeting.
        reply_frame: its frame as sent.
        certificate: whom the peer's certificate names; None where it has none, or one that names no node.
        secure: whether the link runs over TLS.
        binding: the 32 bytes of the TLS exporter; empty without TLS.
        now: Unix seconds.
    """

    dialled: bool
    hello: Hello
    hello_frame: bytes
    reply: HelloReply
    reply_frame: bytes
    certificate: CertificateIdentity | None
    secure: bool
    binding: bytes
    now: float

    @property
    def peer(self) -> Hello | HelloReply:
        """What the other side said of itself."""
        return self.reply if self.dialled else self.hello

    @property
    def own(self) -> Hello | HelloReply:
        """What this side said of itself."""
        return self.hello if self.dialled else self.reply
