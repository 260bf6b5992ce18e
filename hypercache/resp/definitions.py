"""Named stores and members as clients define and see them."""

from __future__ import annotations

import msgspec


class StoreRequest(msgspec.Struct, frozen=True):
    """A store to be made.

    Attributes:
        name: its name.
        level: what it promises of a write: ``async``, ``quorum`` or ``raft``.
        replicas: how many nodes hold each key; 0 for every member.
        maxmemory: its own bound, in bytes; 0 for none.
        eviction: the policy at that bound.
        ttl_ms: how long a key lives that is written without a deadline, in milliseconds; 0 for ever.
    """

    name: str
    level: str = "async"
    replicas: int = 0
    maxmemory: int = 0
    eviction: str = "none"
    ttl_ms: int = 0


class StoreFacts(msgspec.Struct, frozen=True):
    """A store as this node knows it.

    Attributes:
        request: how it was defined.
        keys: how many keys this node holds of it.
        volatile: how many of them have a deadline.
        used_bytes: about what they take of memory.
    """

    request: StoreRequest
    keys: int
    volatile: int
    used_bytes: int


class MemberFacts(msgspec.Struct, frozen=True):
    """A member as this node knows it.

    Attributes:
        node_id: its id.
        name: what people call it.
        state: what the cluster holds of it.
        role: leader, voter, learner, follower (of another kind of node) or base peer.
        address: where other nodes reach it.
        client_address: where clients do.
        is_self: whether it is the node that is asked.
    """

    node_id: int
    name: str
    state: str
    role: str
    address: str
    client_address: str
    is_self: bool
