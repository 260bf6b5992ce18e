"""Every message of the protocol, declared once (wire.md, sections 1 and 4)."""

from __future__ import annotations

from typing import ClassVar, Final

from hypercache.wire.kinds import (
    Part,
    blob,
    count,
    entries,
    fixed,
    flag,
    length,
    reserved,
    rest,
    short_text,
    text,
    trailing_flag,
    u8,
    u16,
    u32,
    u64,
)
from hypercache.wire.schema import Message, Schema

NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32


class KeepAlive(Message, frozen=True, gc=False):
    """Nothing: it shows that the sender lives, and is never answered."""

    TYPE: ClassVar[int] = 0x00


_HELLO: Final[tuple[Part, ...]] = (
    u8("lowest_version"),
    u8("highest_version"),
    u32("capabilities"),
    u64("node_id"),
    u64("boot"),
    u64("cluster_id"),
    u8("node_type"),
    u64("clock"),
    fixed("nonce", NONCE_BYTES),
    u32("max_frame"),
    u64("schema_hash"),
    short_text("key_id"),
    short_text("name"),
    short_text("client_address"),
    short_text("cluster_address"),
)


class _Greeting(Message, frozen=True, gc=False):
    lowest_version: int
    highest_version: int
    capabilities: int
    node_id: int
    boot: int
    cluster_id: int
    node_type: int
    clock: int
    nonce: bytes
    max_frame: int
    schema_hash: int
    key_id: str
    name: str
    client_address: str
    cluster_address: str


class Hello(_Greeting, frozen=True, gc=False):
    """The dialler's first frame: who it is and what it can do."""

    TYPE: ClassVar[int] = 0x01
    ANSWER: ClassVar[int] = 0x02
    PARTS: ClassVar[tuple[Part, ...]] = _HELLO


class HelloReply(_Greeting, frozen=True, gc=False):
    """The listener's answer to Hello: the same about itself."""

    TYPE: ClassVar[int] = 0x02
    PARTS: ClassVar[tuple[Part, ...]] = _HELLO


class AuthProof(Message, frozen=True, gc=False):
    """The dialler's proof that it holds the shared key."""

    TYPE: ClassVar[int] = 0x03
    ANSWER: ClassVar[int] = 0x04
    PARTS: ClassVar[tuple[Part, ...]] = (fixed("proof", PROOF_BYTES),)
    proof: bytes


class AuthResult(Message, frozen=True, gc=False):
    """The listener's verdict, and its own proof."""

    TYPE: ClassVar[int] = 0x04
    PARTS: ClassVar[tuple[Part, ...]] = (u8("status"), u8("error_code"), fixed("proof", PROOF_BYTES))
    status: int
    error_code: int
    proof: bytes


class Goodbye(Message, frozen=True, gc=False):
    """The sender is about to close the link, and why."""

    TYPE: ClassVar[int] = 0x05
    PARTS: ClassVar[tuple[Part, ...]] = (u16("code"), short_text("reason"))
    code: int
    reason: str


class WindowUpdate(Message, frozen=True, gc=False):
    """The sender of a stream may send so many messages and bytes more."""

    TYPE: ClassVar[int] = 0x06
    PARTS: ClassVar[tuple[Part, ...]] = (u16("stream"), u32("messages"), u32("bytes"))
    stream: int
    messages: int
    bytes: int


class StreamReset(Message, frozen=True, gc=False):
    """The end of a stream: code 0, the sender has sent all; any other, both directions are given up."""

    TYPE: ClassVar[int] = 0x07
    PARTS: ClassVar[tuple[Part, ...]] = (u16("stream"), u16("code"), short_text("reason"))
    stream: int
    code: int
    reason: str


class SchemaRequest(Message, frozen=True, gc=False):
    """Asks for the schema of all messages understood."""

    TYPE: ClassVar[int] = 0x08
    ANSWER: ClassVar[int] = 0x09
    IDEMPOTENT: ClassVar[bool] = True


class SchemaResponse(Message, frozen=True, gc=False):
    """The schema of all messages understood, as JSON."""

    TYPE: ClassVar[int] = 0x09
    PARTS: ClassVar[tuple[Part, ...]] = (length("schema", 4), text("schema"))
    schema: str


_VOTE: Final[tuple[Part, ...]] = (u64("term"), u64("candidate_id"), u64("last_log_index"), u64("last_log_term"))
_VOTE_ANSWER: Final[tuple[Part, ...]] = (u64("term"), flag("vote_granted"), reserved(7))


class VoteRequest(Message, frozen=True, gc=False):
    """Raft: a candidate asks for a vote; transfer says that the leader itself wished it."""

    TYPE: ClassVar[int] = 0x10
    ANSWER: ClassVar[int] = 0x11
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (*_VOTE, trailing_flag("transfer"))
    term: int
    candidate_id: int
    last_log_index: int
    last_log_term: int
    transfer: bool = False


class VoteResponse(Message, frozen=True, gc=False):
    """Raft: the answer to a candidate."""

    TYPE: ClassVar[int] = 0x11
    PARTS: ClassVar[tuple[Part, ...]] = _VOTE_ANSWER
    term: int
    vote_granted: bool


class LogEntry(Message, frozen=True, gc=False):
    """Raft: one entry of the log; type 0 no-op, 1 data, 2 configuration."""

    PARTS: ClassVar[tuple[Part, ...]] = (u64("term"), u8("type"), length("data", 4), blob("data"))
    term: int
    type: int
    data: bytes


class AppendEntries(Message, frozen=True):
    """Raft: entries for a follower; entry k has index prev_log_index + 1 + k."""

    TYPE: ClassVar[int] = 0x12
    ANSWER: ClassVar[int] = 0x13
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (
        u64("term"),
        u64("leader_id"),
        u64("prev_log_index"),
        u64("prev_log_term"),
        u64("leader_commit"),
        count("entries", 4),
        entries("entries", LogEntry),
    )
    term: int
    leader_id: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    entries: tuple[LogEntry, ...]


class AppendResponse(Message, frozen=True, gc=False):
    """Raft: a follower's answer; on success conflict_index and conflict_term name the last entry known to match."""

    TYPE: ClassVar[int] = 0x13
    PARTS: ClassVar[tuple[Part, ...]] = (u64("term"), flag("success"), u64("conflict_index"), u64("conflict_term"))
    term: int
    success: bool
    conflict_index: int
    conflict_term: int


class InstallSnapshot(Message, frozen=True, gc=False):
    """Raft: one chunk of a snapshot."""

    TYPE: ClassVar[int] = 0x14
    ANSWER: ClassVar[int] = 0x15
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (
        u64("term"),
        u64("leader_id"),
        u64("last_included_index"),
        u64("last_included_term"),
        u64("offset"),
        flag("done"),
        length("data", 4),
        blob("data"),
    )
    term: int
    leader_id: int
    last_included_index: int
    last_included_term: int
    offset: int
    done: bool
    data: bytes


class SnapshotResponse(Message, frozen=True, gc=False):
    """Raft: where the next chunk must begin."""

    TYPE: ClassVar[int] = 0x15
    PARTS: ClassVar[tuple[Part, ...]] = (u64("term"), flag("success"), u64("next_offset"))
    term: int
    success: bool
    next_offset: int


class PreVoteRequest(Message, frozen=True, gc=False):
    """Raft: asks whether a vote would be granted; laid out as VoteRequest."""

    TYPE: ClassVar[int] = 0x16
    ANSWER: ClassVar[int] = 0x17
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = _VOTE
    term: int
    candidate_id: int
    last_log_index: int
    last_log_term: int


class PreVoteResponse(Message, frozen=True, gc=False):
    """Raft: the answer to PreVoteRequest; laid out as VoteResponse."""

    TYPE: ClassVar[int] = 0x17
    PARTS: ClassVar[tuple[Part, ...]] = _VOTE_ANSWER
    term: int
    vote_granted: bool


class TimeoutNow(Message, frozen=True, gc=False):
    """Raft: the leader asks a voter to campaign at once, to hand the leadership over."""

    TYPE: ClassVar[int] = 0x18
    PARTS: ClassVar[tuple[Part, ...]] = (u64("term"), u64("leader_id"))
    term: int
    leader_id: int


class Propose(Message, frozen=True, gc=False):
    """Raft: a proposal on its way to the leader; an entry of type 1 holds this payload."""

    TYPE: ClassVar[int] = 0x19
    ANSWER: ClassVar[int] = 0x1A
    PARTS: ClassVar[tuple[Part, ...]] = (u64("client_id"), u64("sequence"), u64("lowest_unanswered"), rest("data"))
    client_id: int
    sequence: int
    lowest_unanswered: int
    data: bytes


class ProposeResponse(Message, frozen=True, gc=False):
    """Raft: where the leader put a proposal (not: that it is committed); status 0 taken, 1 error, 2 retry later."""

    TYPE: ClassVar[int] = 0x1A
    PARTS: ClassVar[tuple[Part, ...]] = (
        u8("status"),
        u8("error_code"),
        u64("client_id"),
        u64("sequence"),
        u64("term"),
        u64("index"),
        u64("leader_id"),
    )
    status: int
    error_code: int
    client_id: int
    sequence: int
    term: int
    index: int
    leader_id: int


class ReadIndex(Message, frozen=True, gc=False):
    """Raft: asks the leader from which index on a linearizable read may be served; context names the read."""

    TYPE: ClassVar[int] = 0x1B
    ANSWER: ClassVar[int] = 0x1C
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u64("context"),)
    context: int


class ReadIndexResponse(Message, frozen=True, gc=False):
    """Raft: the read may be served once this index is applied; status 0 success, 1 error, 2 retry later."""

    TYPE: ClassVar[int] = 0x1C
    PARTS: ClassVar[tuple[Part, ...]] = (u8("status"), u8("error_code"), u64("context"), u64("index"))
    status: int
    error_code: int
    context: int
    index: int


class ReplicateData(Message, frozen=True, gc=False):
    """A change of one record; operation 1 SET, 2 DELETE, 3 EXPIRE, 4 APPLY, 5 BATCH; ttl in nanoseconds, 0 for none."""

    TYPE: ClassVar[int] = 0x20
    ANSWER: ClassVar[int] = 0x21
    PARTS: ClassVar[tuple[Part, ...]] = (
        u8("operation"),
        length("store", 1),
        length("key", 4),
        length("value", 4),
        u64("ttl"),
        text("store"),
        blob("key"),
        blob("value"),
    )
    operation: int
    ttl: int
    store: str
    key: bytes
    value: bytes


class ReplicateResponse(Message, frozen=True, gc=False):
    """The answer to ReplicateData; status 0 success, 1 error, 2 retry later."""

    TYPE: ClassVar[int] = 0x21
    PARTS: ClassVar[tuple[Part, ...]] = (u8("status"), u8("error_code"), reserved(6))
    status: int
    error_code: int


class NodeJoinRequest(Message, frozen=True, gc=False):
    """A node asks to become a member; host and port are where its cluster port is reached."""

    TYPE: ClassVar[int] = 0x30
    ANSWER: ClassVar[int] = 0x31
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (
        u64("node_id"),
        length("host", 1),
        u16("port"),
        u8("node_type"),
        u32("capabilities"),
        text("host"),
    )
    node_id: int
    port: int
    node_type: int
    capabilities: int
    host: str


class NodeJoinResponse(Message, frozen=True, gc=False):
    """The answer to NodeJoinRequest."""

    TYPE: ClassVar[int] = 0x31
    PARTS: ClassVar[tuple[Part, ...]] = (u8("status"), u8("error_code"), u64("cluster_id"), reserved(6))
    status: int
    error_code: int
    cluster_id: int


class Heartbeat(Message, frozen=True, gc=False):
    """A node lives; load is CPU in hundredths of a per cent, timestamp Unix nanoseconds."""

    TYPE: ClassVar[int] = 0x32
    ANSWER: ClassVar[int] = 0x33
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"), u64("timestamp"), u32("load"), reserved(4))
    node_id: int
    timestamp: int
    load: int


class HeartbeatResponse(Message, frozen=True, gc=False):
    """The answer to Heartbeat, with its timestamp."""

    TYPE: ClassVar[int] = 0x33
    PARTS: ClassVar[tuple[Part, ...]] = (u64("timestamp"), u8("status"), reserved(7))
    timestamp: int
    status: int


class NodeLeaveRequest(Message, frozen=True, gc=False):
    """Asks that a node leave the cluster for good: itself, or one that is dead; answered by NodeLeaveResponse."""

    TYPE: ClassVar[int] = 0x34
    ANSWER: ClassVar[int] = 0x35
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"), u64("leaving"))
    node_id: int
    leaving: int


class NodeLeaveResponse(Message, frozen=True, gc=False):
    """Whether the node has left: a status, and an error code where that is 1."""

    TYPE: ClassVar[int] = 0x35
    PARTS: ClassVar[tuple[Part, ...]] = (u8("status"), u8("error_code"), reserved(6))
    status: int
    error_code: int


class SuspectedNode(Message, frozen=True, gc=False):
    """One node that is suspected."""

    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"),)
    node_id: int


class Suspicion(Message, frozen=True, gc=False):
    """Tells the leader which members the sender has not heard for too long; never answered."""

    TYPE: ClassVar[int] = 0x60
    PARTS: ClassVar[tuple[Part, ...]] = (count("nodes", 4), entries("nodes", SuspectedNode))
    nodes: tuple[SuspectedNode, ...]


class LogSegment(Message, frozen=True, gc=False):
    """The first record of a segment of the Raft log; on disk alone.

    Attributes:
        cluster_id, node_id: whose log it is.
        number: of the segment, ascending without gaps.
        prev_index, prev_term: the entry that its first one follows.
    """

    TYPE: ClassVar[int] = 0x61
    PARTS: ClassVar[tuple[Part, ...]] = (u64("cluster_id"), u64("node_id"), u64("number"), u64("prev_index"), u64("prev_term"))
    cluster_id: int
    node_id: int
    number: int
    prev_index: int
    prev_term: int


class LogState(Message, frozen=True, gc=False):
    """Term, vote and commit index in the Raft log; on disk alone."""

    TYPE: ClassVar[int] = 0x62
    PARTS: ClassVar[tuple[Part, ...]] = (u64("term"), u64("vote"), u64("commit"))
    term: int
    vote: int
    commit: int


class LogBatch(Message, frozen=True, gc=False):
    """The end of what was appended to the Raft log at once; on disk alone.

    Attributes:
        begin: where that begins in the file, in bytes.
    """

    TYPE: ClassVar[int] = 0x63
    PARTS: ClassVar[tuple[Part, ...]] = (u64("begin"),)
    begin: int


class RingNode(Message, frozen=True, gc=False):
    """One node of the hash ring; host is host:port, or [v6]:port."""

    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"), u64("hash"), u32("vnodes"), short_text("host"))
    node_id: int
    hash: int
    vnodes: int
    host: str


class HashRingUpdate(Message, frozen=True):
    """The nodes of the hash ring, as of a version."""

    TYPE: ClassVar[int] = 0x40
    PARTS: ClassVar[tuple[Part, ...]] = (u64("version"), count("nodes", 4), reserved(3), entries("nodes", RingNode))
    version: int
    nodes: tuple[RingNode, ...]


class HashRingQuery(Message, frozen=True, gc=False):
    """Asks for the hash ring; answered by HashRingUpdate."""

    TYPE: ClassVar[int] = 0x41
    ANSWER: ClassVar[int] = 0x40
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"), reserved(8))
    node_id: int


class ClusterState(Message, frozen=True, gc=False):
    """What HashRingUpdate has no room for, as MessagePack."""

    TYPE: ClassVar[int] = 0x42
    PARTS: ClassVar[tuple[Part, ...]] = (u64("version"), rest("state"))
    version: int
    state: bytes


class GenericError(Message, frozen=True, gc=False):
    """An error; what extra_data means depends on the code."""

    TYPE: ClassVar[int] = 0xFF
    PARTS: ClassVar[tuple[Part, ...]] = (u16("error_code"), length("message", 2), u32("extra_data"), text("message"))
    error_code: int
    extra_data: int
    message: str


SCHEMA: Final = Schema(
    [
        KeepAlive,
        Hello,
        HelloReply,
        AuthProof,
        AuthResult,
        Goodbye,
        WindowUpdate,
        StreamReset,
        SchemaRequest,
        SchemaResponse,
        VoteRequest,
        VoteResponse,
        AppendEntries,
        AppendResponse,
        InstallSnapshot,
        SnapshotResponse,
        PreVoteRequest,
        PreVoteResponse,
        TimeoutNow,
        Propose,
        ProposeResponse,
        ReadIndex,
        ReadIndexResponse,
        ReplicateData,
        ReplicateResponse,
        NodeJoinRequest,
        NodeJoinResponse,
        Heartbeat,
        HeartbeatResponse,
        NodeLeaveRequest,
        NodeLeaveResponse,
        HashRingUpdate,
        HashRingQuery,
        ClusterState,
        Suspicion,
        LogSegment,
        LogState,
        LogBatch,
        GenericError,
    ]
)
