"""What `hypercache status` shows, as data for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.control.state import NodeKind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hypercache.control.state import ControlState, Member, StoreDefinition

_KINDS: Final = {NodeKind.CACHE: "cache", NodeKind.PROXY: "proxy", NodeKind.STORAGE: "storage"}
_PHI_MAX: Final = 1000.0


class GroupStatus(msgspec.Struct, frozen=True):
    """One node's part in the Raft group, as of now.

    Attributes:
        node_id: the node that tells.
        name: what people call it.
        role: what it is in its term: follower, pre-candidate, candidate or leader.
        leader: the leader as far as it knows; 0 for none.
        term, commit, applied: of its log.
        voters, outgoing, learners: the latest configuration in it.
        match: on a leader, how far each follower has the log.
        suspects: who is suspected, and by whom, as far as the node was told.
        phi: how suspicious each member's silence is to the node.
        disk_full: whether its disk takes nothing more.
    """

    node_id: int
    name: str = ""
    role: str = "follower"
    leader: int = 0
    term: int = 0
    commit: int = 0
    applied: int = 0
    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    match: Mapping[int, int] = {}
    suspects: Mapping[int, Collection[int]] = {}
    phi: Mapping[int, float] = {}
    disk_full: bool = False


def status_report(state: ControlState, status: GroupStatus) -> dict[str, Any]:
    """Return what is known of the cluster here; in the same order whenever it is the same.

    Args:
        state: the control plane as this node has applied it.
        status: the node's part in the group.
    """
    return {
        "cluster_id": state.cluster_id,
        "node": {
            "id": status.node_id,
            "name": status.name,
            "role": status.role,
            "term": status.term,
            "commit": status.commit,
            "applied": status.applied,
            "disk_full": status.disk_full,
        },
        "leader": status.leader,
        "version": state.version,
        "ring_version": state.ring_version,
        "voters": list(status.voters),
        "outgoing": list(status.outgoing),
        "learners": list(status.learners),
        "members": [_member(state.members[node_id], status) for node_id in sorted(state.members)],
        "stores": [_store(state.stores[name]) for name in sorted(state.stores)],
        "plan": None if state.plan is None else {"index": state.plan.index, "reason": state.plan.reason},
    }


def _member(member: Member, status: GroupStatus) -> dict[str, Any]:
    node_id = member.node_id
    own = node_id == status.node_id
    return {
        "id": node_id,
        "name": member.name,
        "type": _KINDS.get(member.node_type, str(member.node_type)),
        "state": str(member.state),
        "reason": member.reason,
        "changed_ms": member.changed_ms,
        "role": _role(node_id, status),
        "address": member.address,
        "client_address": member.client_address,
        "boot": member.boot,
        "match": status.commit if own and status.leader == node_id else status.match.get(node_id),
        "suspected_by": sorted(status.suspects.get(node_id, ())),
        "phi": 0.0 if own else round(min(status.phi.get(node_id, 0.0), _PHI_MAX), 2),
    }


def _role(node_id: int, status: GroupStatus) -> str:
    """Return a member's part in the group; "none" for one that has none."""
    if node_id == status.leader:
        return "leader"
    if node_id in status.voters or node_id in status.outgoing:
        return "voter"
    return "learner" if node_id in status.learners else "none"


def _store(store: StoreDefinition) -> dict[str, Any]:
    return {
        "name": store.name,
        "level": str(store.level),
        "replicas": store.replicas,
        "maxmemory": store.maxmemory,
        "eviction": store.eviction,
        "ttl_ms": store.ttl_ms,
    }
