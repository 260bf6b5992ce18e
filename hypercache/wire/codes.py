"""The numbers of the protocol that have names: error codes, statuses, operations, node types, capabilities."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class ErrorCode(IntEnum):
    """Error codes of a GenericError; their low byte in one-byte fields."""

    UNKNOWN_MESSAGE_TYPE = 0x0001
    INVALID_VERSION = 0x0002
    CHECKSUM_MISMATCH = 0x0003
    MESSAGE_TOO_LARGE = 0x0004
    NOT_AUTHORIZED = 0x0005
    CLUSTER_FULL = 0x0006
    INTERNAL_ERROR = 0x0007
    MALFORMED_MESSAGE = 0x0100
    RATE_LIMITED = 0x0101
    NOT_LEADER = 0x0102
    STALE_RING = 0x0103
    SHUTTING_DOWN = 0x0104


class Status(IntEnum):
    """The status of a ReplicateResponse, NodeJoinResponse or HeartbeatResponse."""

    SUCCESS = 0
    ERROR = 1
    RETRY_LATER = 2


class Operation(IntEnum):
    """What a ReplicateData does."""

    SET = 1
    DELETE = 2
    EXPIRE = 3
    APPLY = 4
    BATCH = 5


class NodeType(IntEnum):
    """The role of a node."""

    CACHE = 1
    PROXY = 2
    STORAGE = 3


class Capability(IntFlag):
    """What a node can do, as it says in Hello and NodeJoinRequest."""

    CUCKOO_FILTERS = 1 << 0
    COMPRESSION = 1 << 1
    TLS = 1 << 2
    MULTIPLEXING = 1 << 3
    SIGNING = 1 << 4
    TRACING = 1 << 5
    STAMPS = 1 << 6
