"""The entries of the control plane: what can be asked of it, and what it answers."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from hypercache.control.entries import EntryKind, undecided
from hypercache.control.state import MemberState, NodeKind
from hypercache.errors import MalformedMessageError
from hypercache.limits import MAX_NODES_COUNT


class _Command(msgspec.Struct, frozen=True, tag=True):
    """One entry. Its class's name is in the log: it is never changed."""


class AddMember(_Command, frozen=True):
    """A node becomes a member, or a member has started again.

    Attributes:
        node_id: its id.
        address: where other nodes reach it; empty where they cannot.
        node_type: its role.
        capabilities: what it can do.
        name: what people call it.
        client_address: where clients reach it.
        boot: which of its starts this is.
        extended: False for a base peer.
        fresh: it belongs to no cluster yet, as its Hello says: whatever was known of it, it holds nothing of that.
        max_nodes: how many members there may be, by the settings of the node that proposes this.
    """

    node_id: int
    address: str
    node_type: int = NodeKind.CACHE
    capabilities: int = 0
    name: str = ""
    client_address: str = ""
    boot: int = 0
    extended: bool = True
    fresh: bool = False
    max_nodes: int = MAX_NODES_COUNT


class FoundCluster(_Command, frozen=True):
    """The first entry of a cluster: its id, and the node that founds it."""

    cluster_id: int
    founder: AddMember


class UpdateMember(_Command, frozen=True):
    """A member is reached elsewhere; what is None stays."""

    node_id: int
    address: str | None = None
    client_address: str | None = None
    name: str | None = None


class SetMemberState(_Command, frozen=True):
    """The cluster holds something else of a member.

    Attributes:
        node_id: the member.
        state: what it holds; never REJOINING, which `AddMember` brings about.
        reason: why, for people.
        was: the state that the proposer saw; where it is another by now, nothing happens. None for any.
    """

    node_id: int
    state: MemberState
    reason: str = ""
    was: MemberState | None = None


class RemoveMember(_Command, frozen=True):
    """A member leaves for good."""

    node_id: int


class CreateStore(_Command, frozen=True):
    """A store comes to be (`hypercache.control.state.StoreDefinition`)."""

    name: str
    level: str
    replicas: int = 0
    maxmemory: int = 0
    eviction: str = "none"
    ttl_ms: int = 0


class DropStore(_Command, frozen=True):
    """A store goes, and all that is in it."""

    name: str


class SetUser(_Command, frozen=True):
    """An ACL user has these rules from now on."""

    name: str
    rules: bytes


class DropUser(_Command, frozen=True):
    """An ACL user goes."""

    name: str


class BeginPlan(_Command, frozen=True):
    """A rebalancing plan begins; its entry's index names it."""

    reason: str
    data: bytes


class EndPlan(_Command, frozen=True):
    """A rebalancing plan ends: carried out, or given up."""

    index: int


Command = (
    AddMember
    | FoundCluster
    | UpdateMember
    | SetMemberState
    | RemoveMember
    | CreateStore
    | DropStore
    | SetUser
    | DropUser
    | BeginPlan
    | EndPlan
)

_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """Return a command as msgpack."""
    return msgspec.msgpack.encode(command)


def decode_command(data: bytes) -> Command:
    """Return the command that an entry holds.

    Raises:
        MalformedMessageError: it holds none that this release knows.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError(f"an entry of the control plane is no command: {error}") from None


def proposal(command: Command) -> bytes:
    """Return a command as a proposal's data, for the leader to decide on."""
    return undecided(EntryKind.CONTROL, encode_command(command))


class Code(StrEnum):
    """What became of a command."""

    OK = "ok"
    REJOIN = "rejoin"
    """The node came without its log: it is asked again once it has left the group."""
    EXISTS = "exists"
    UNKNOWN = "unknown"
    INVALID = "invalid"
    RESERVED = "reserved"
    FULL = "full"
    UNSUPPORTED = "unsupported"
    PENDING = "pending"
    LEFT = "left"
    LAST = "last"
    STALE = "stale"
    MALFORMED = "malformed"


class Outcome(msgspec.Struct, frozen=True):
    """What a command is answered.

    Attributes:
        code: what became of it; anything but OK changed nothing that was asked for.
        text: why it was refused, for people; of characters that a RESP error may hold.
        index: the entry; it names a plan or a store that was made.
        version: the control plane's version behind it.
    """

    code: Code
    text: str = ""
    index: int = 0
    version: int = 0

    @property
    def ok(self) -> bool:
        """Whether what was asked for is so now."""
        return self.code is Code.OK


def encode_outcome(outcome: Outcome) -> bytes:
    """Return an outcome as msgpack."""
    return msgspec.msgpack.encode(outcome)


def decode_outcome(data: bytes) -> Outcome:
    """Return the outcome that a proposal's answer holds.

    Raises:
        MalformedMessageError: it holds none.
    """
    try:
        return msgspec.msgpack.decode(data, type=Outcome)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError(f"the answer to a command of the control plane is damaged: {error}") from None
