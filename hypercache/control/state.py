"""What all members agree on, besides the data of `raft` stores: frozen values, and the bytes that stand for them in a snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from hypercache.errors import MalformedMessageError


class MemberState(StrEnum):
    """What the cluster holds of a member."""

    JOINING = "joining"
    """It is a member, and not level yet."""
    UP = "up"
    """It serves."""
    DOWN = "down"
    """A majority of the voters does not hear it; it keeps its data and its place."""
    LEAVING = "leaving"
    """It gives up its part in the group, and what it holds; then it is removed."""
    REJOINING = "rejoining"
    """It came back without its log: it must leave the group before it is taken anew."""


class NodeKind:
    """The types of nodes (wire.md: node_type)."""

    CACHE = 1
    PROXY = 2
    STORAGE = 3


class Level(StrEnum):
    """What a store promises of a write (docs/architecture.md)."""

    ASYNC = "async"
    QUORUM = "quorum"
    RAFT = "raft"


class Member(msgspec.Struct, frozen=True):
    """A node of the cluster.

    Attributes:
        node_id: its id, which never changes.
        address: where other nodes reach it; empty where they cannot.
        node_type: its role (`NodeKind`).
        state: what the cluster holds of it.
        capabilities: what it can do, as it says in Hello.
        name: what people call it.
        client_address: where clients reach it.
        boot: the start of it that was last taken; 0 for a base peer.
        extended: False for a base peer, which speaks no Raft.
        since_index: the entry with which it became a member.
        changed_ms: when its state last changed, Unix milliseconds by the leader's clock.
        reason: why it is in that state, for people.
    """

    node_id: int
    address: str
    node_type: int = NodeKind.CACHE
    state: MemberState = MemberState.JOINING
    capabilities: int = 0
    name: str = ""
    client_address: str = ""
    boot: int = 0
    extended: bool = True
    since_index: int = 0
    changed_ms: int = 0
    reason: str = ""

    @property
    def may_vote(self) -> bool:
        """Whether it may belong to the Raft group."""
        return self.extended and self.node_type == NodeKind.CACHE


class StoreDefinition(msgspec.Struct, frozen=True):
    """A named store.

    Attributes:
        name: its name.
        level: what it promises of a write.
        replicas: how many nodes hold each key; 0 for every member.
        maxmemory: its bound in bytes; 0 for none of its own.
        eviction: the policy at that bound.
        ttl_ms: how long a key lives that is written without a deadline; 0 for ever.
        created_index: the entry that made it: another store of that name has another.
    """

    name: str
    level: Level
    replicas: int = 0
    maxmemory: int = 0
    eviction: str = "none"
    ttl_ms: int = 0
    created_index: int = 0


class Plan(msgspec.Struct, frozen=True):
    """A rebalancing plan that is under way.

    Attributes:
        index: the entry that began it, which names it.
        reason: what it is for.
        data: the plan itself.
    """

    index: int
    reason: str
    data: bytes


class ControlState(msgspec.Struct, frozen=True):
    """The control plane as of one entry. Nothing in it is ever changed: a change makes another one.

    Attributes:
        cluster_id: which cluster this is; 0 before it is founded.
        version: grows with every change.
        ring_version: grows with every change of what a HashRingUpdate shows: who is a member, and where.
        members: by id.
        stores: by name.
        users: the rules of each ACL user, opaque here.
        plan: the rebalancing plan that is under way.
        removed: the ids that left last, oldest first.
        voters: who votes, by the last committed configuration that was not joint.
        learners: who learns, likewise.
    """

    cluster_id: int = 0
    version: int = 0
    ring_version: int = 0
    members: Mapping[int, Member] = {}
    stores: Mapping[str, StoreDefinition] = {}
    users: Mapping[str, bytes] = {}
    plan: Plan | None = None
    removed: tuple[int, ...] = ()
    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()

    def in_group(self, node_id: int) -> bool:
        """Whether a node is sent the log."""
        return node_id in self.voters or node_id in self.learners


class _Stored(msgspec.Struct, frozen=True):
    """A state as it is written: tables as ordered rows, so that equal states have equal bytes."""

    cluster_id: int
    version: int
    ring_version: int
    members: list[Member]
    stores: list[StoreDefinition]
    users: list[tuple[str, bytes]]
    plan: Plan | None = None
    removed: tuple[int, ...] = ()
    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()


def encode_state(state: ControlState) -> bytes:
    """Return a state as msgpack; the same state gives the same bytes, in whichever order it came about."""
    return msgspec.msgpack.encode(
        _Stored(
            state.cluster_id,
            state.version,
            state.ring_version,
            [state.members[node_id] for node_id in sorted(state.members)],
            [state.stores[name] for name in sorted(state.stores)],
            sorted(state.users.items()),
            state.plan,
            state.removed,
            state.voters,
            state.learners,
        )
    )


def decode_state(data: bytes) -> ControlState:
    """Return the state that a snapshot or a ClusterState holds.

    Raises:
        MalformedMessageError: the bytes are damaged.
    """
    try:
        stored = msgspec.msgpack.decode(data, type=_Stored)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError(f"the control plane's state is damaged: {error}") from None
    return ControlState(
        stored.cluster_id,
        stored.version,
        stored.ring_version,
        {member.node_id: member for member in stored.members},
        {store.name: store for store in stored.stores},
        dict(stored.users),
        stored.plan,
        stored.removed,
        stored.voters,
        stored.learners,
    )
