"""Whether a certificate and a greeting name the same node: what every provider asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercache.auth.handshake import Handshake


def mismatch(handshake: Handshake, cluster_id: int = 0) -> str | None:
    """Return in what the peer's certificate contradicts its Hello, None where it does not.

    A certificate that names no node contradicts nothing. The cluster that one names must be each that is known: the peer's, this
    node's, and the one that this node is set up for. Where none is known, neither side is a member of anything yet and cannot make
    the other one a member either; then the node alone is compared.

    Args:
        handshake: the link's.
        cluster_id: the cluster that this node is set up for; 0 for none.
    """
    certificate = handshake.certificate
    if certificate is None:
        return None
    peer = handshake.peer
    if certificate.node_id != peer.node_id:
        return f"its certificate is node {certificate.node_id}'s, and it says that it is node {peer.node_id}"
    for known in (peer.cluster_id, handshake.own.cluster_id, cluster_id):
        if known and certificate.cluster_id != known:
            return f"its certificate is for cluster {certificate.cluster_id}, not {known}"
    return None
