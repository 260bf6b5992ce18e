"""What is known of a member, what a node tells of itself, and who decides who is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import xxhash

from hypercache.wire import Capability

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from hypercache.net.peer import PeerLink
    from hypercache.wire.messages import NodeJoinRequest, NodeJoinResponse

CAPABILITIES: Final = Capability.STAMPS | Capability.MULTIPLEXING | Capability.TRACING | Capability.SIGNING
"""What every node of this release can do; compression and TLS are settings."""


class Member(msgspec.Struct):
    """One node of the cluster.

    Attributes:
        node_id: its id; the address may change, the id never does.
        address: where its cluster port is reached; empty where it cannot be dialled.
        node_type: its role.
        link: the link to it, None while there is none.
        extended: it has said Hello: it is no base peer, and is never taken for one.
    """

    node_id: int
    address: str
    node_type: int
    link: PeerLink | None = None
    extended: bool = False


class NodeFacts(msgspec.Struct, frozen=True):
    """What a node tells others about itself."""

    name: str
    client_address: str
    cluster_address: str
    max_frame: int
    schema_hash: int
    capabilities: int = CAPABILITIES


def node_hash(node_id: int) -> int:
    """Return a node's place in the ring: xxh64 of its id as u64, seed 0 (wire.md, section 4)."""
    return xxhash.xxh64_intdigest(node_id.to_bytes(8, "big"))


class Agreement(Protocol):
    """What all members agree on; `hypercache.cluster.control_plane.ControlPlane` has it."""

    def knows(self, link: PeerLink, node_id: int) -> bool:
        """Whether the node behind a link, which asks to be a member, is one and holds what it held."""

    def admit(self, link: PeerLink, request: NodeJoinRequest, address: str) -> Deferred[NodeJoinResponse]:
        """Have a node become a member; fires with what it is answered, and never fails."""

    def has_left(self, node_id: int) -> bool:
        """Whether a node was a member, and is none any more."""

    def expelled(self) -> None:
        """Take note that this node is no member any more, as a member says."""
