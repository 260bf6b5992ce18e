"""What a node tells of itself: INFO's sections, and the figures of /stats and /metrics."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

from hypercache import __version__
from hypercache.cluster.group_figures import group_figures
from hypercache.net.metrics import links_by_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypercache.cluster.control_plane import ControlPlane
    from hypercache.cluster.copies import CopyReplicator
    from hypercache.net.clients import ClientFactory
    from hypercache.persist.identity import Identity
    from hypercache.roles.peering import Peering
    from hypercache.store import Keyspace


class NodeFigures:
    """The figures of one node.

    Args:
        name: its name.
        identity: who it is.
        keyspace: its stores.
        clients: its door for clients.
        replicator: what its members are sent.
        peering: its port for peers.
        control: its part in the Raft group.
    """

    def __init__(
        self,
        name: str,
        identity: Identity,
        keyspace: Keyspace,
        clients: ClientFactory,
        replicator: CopyReplicator,
        peering: Peering,
        control: ControlPlane,
    ) -> None:
        self._name = name
        self._identity = identity
        self._keyspace = keyspace
        self._clients = clients
        self._replicator = replicator
        self._peering = peering
        self._control = control

    def replication(self) -> Mapping[str, str | int | float]:
        """Return INFO's section on replication."""
        members = self._peering.membership.members if self._peering.membership is not None else []
        feeds = list(self._replicator.feeds.values())
        return {
            "role": "master",
            "connected_slaves": 0,
            "hypercache_node_id": self._identity.node_id,
            "hypercache_cluster_id": self._identity.cluster_id,
            "hypercache_members": len(members) + 1,
            "hypercache_linked_members": sum(member.link is not None for member in members),
            "hypercache_level_members": sum(feed.is_level for feed in feeds),
            "hypercache_outbox_keys": sum(len(feed.outbox) for feed in feeds),
            "hypercache_full_copies": sum(feed.copies for feed in feeds),
            "hypercache_oversized_records": sum(feed.oversized for feed in feeds),
            "hypercache_refused_messages": sum(feed.refused for feed in feeds),
        }

    def raft(self) -> Mapping[str, str | int | float]:
        """Return INFO's section on the Raft group."""
        return {f"raft_{name}": value for name, value in group_figures(self._control.consensus).items()}

    def stats(self) -> dict[str, Any]:
        """Return the node's figures, as data for JSON."""
        return self.all() | {"messages": self._peering.metrics.message_stats()}

    def all(self) -> dict[str, Any]:
        """Return everything but the figures by message type."""
        return {
            "node": {"name": self._name, "id": self._identity.node_id, "boot": self._identity.boot, "version": __version__},
            "clients": {
                "connected": len(self._clients),
                "accepted": self._clients.accepted,
                "rejected": self._clients.rejected,
                "cut": self._clients.cut,
                "received_bytes": self._clients.bytes_in,
                "sent_bytes": self._clients.bytes_out,
            },
            "stores": {
                store.name: {
                    "keys": len(store),
                    "bytes": store.used_bytes(),
                    "hits": store.hits,
                    "misses": store.misses,
                    "expired": store.expired,
                    "evicted": store.evicted,
                }
                for store in self._keyspace.all_stores()
            },
            "replication": dict(self.replication()),
            "raft": group_figures(self._control.consensus),
            "links": {
                "states": links_by_state(self._peering.peers.links),
                "unfinished_bytes": self._peering.peers.budget.held,
                **self._peering.metrics.link_stats(),
            },
        }


def cpu_figures() -> Mapping[str, str | int | float]:
    """Return INFO's section on the processor."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
    }
