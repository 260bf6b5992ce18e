"""Who is a member: how each command about members changes the state (docs/control-plane.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.control.commands import Code
from hypercache.control.effects import Effect, refused
from hypercache.control.state import Member, MemberState, NodeKind
from hypercache.limits import MAX_NODES_COUNT, MEMBER_TEXT_MAX_BYTES, REMOVED_NODES_MAX_COUNT

if TYPE_CHECKING:
    from hypercache.control.commands import AddMember, FoundCluster, RemoveMember, SetMemberState, UpdateMember
    from hypercache.control.state import ControlState

_KINDS: Final = (NodeKind.CACHE, NodeKind.PROXY, NodeKind.STORAGE)
_ID_END: Final = 1 << 64


def found(state: ControlState, command: FoundCluster, index: int, when_ms: int) -> Effect:
    """Found the cluster, once; the same founding again is a start of its founder."""
    if not 0 < command.cluster_id < _ID_END:
        return refused(state, Code.INVALID, f"{command.cluster_id} is no id of a cluster")
    if state.cluster_id not in (0, command.cluster_id):
        return refused(state, Code.EXISTS, f"this is cluster {state.cluster_id} already")
    effect = add(state, command.founder, index, when_ms)
    if effect.code is not Code.OK or state.cluster_id:
        return effect
    # The group begins with its founder, by a configuration that no entry holds.
    voters = state.voters or (command.founder.node_id,)
    return Effect(msgspec.structs.replace(effect.state, cluster_id=command.cluster_id, voters=voters), forget=effect.forget)


def add(state: ControlState, command: AddMember, index: int, when_ms: int) -> Effect:
    """Take a node for a member, or take note that one has started again (consistency.md, rules 13 and 14)."""
    fault = _fault(command)
    if fault:
        return refused(state, Code.INVALID, fault)
    known = state.members.get(command.node_id)
    if known is None:
        return _newcomer(state, command, index, when_ms)
    if known.extended and not command.extended:
        return refused(state, Code.INVALID, f"node {command.node_id} has said Hello before, and is never taken for a base peer")
    lost_its_log = known.extended and (command.fresh or command.boot < known.boot or known.state is MemberState.REJOINING)
    if not lost_its_log:
        return _restarted(state, known, command)
    if state.in_group(command.node_id):
        # What it acknowledged counts until the group has let go of it: under that id it may not begin from nothing before.
        rejoining = _in_state(known, MemberState.REJOINING, "it came back without its log", when_ms)
        return Effect(_with(state, rejoining), Code.REJOIN, f"node {command.node_id} must leave the group first; ask again")
    taken = _member(command, index, when_ms)
    return Effect(_with(state, taken), forget=(command.node_id,))


def update(state: ControlState, command: UpdateMember) -> Effect:
    """Take note of where a member is reached."""
    known = state.members.get(command.node_id)
    if known is None:
        return _unknown(state, command.node_id)
    texts = {field: value for field in ("address", "client_address", "name") if (value := getattr(command, field)) is not None}
    if any(_too_long(text) for text in texts.values()):
        return refused(state, Code.INVALID, f"addresses and names have at most {MEMBER_TEXT_MAX_BYTES} bytes")
    return Effect(_with(state, msgspec.structs.replace(known, **texts)))


def set_state(state: ControlState, command: SetMemberState, when_ms: int) -> Effect:
    """Hold something else of a member."""
    known = state.members.get(command.node_id)
    if known is None:
        return _unknown(state, command.node_id)
    if command.was is not None and known.state is not command.was:
        return refused(state, Code.STALE, f"node {known.node_id} is {known.state} by now")
    if known.state is MemberState.REJOINING:
        return refused(state, Code.STALE, f"node {known.node_id} came back without its log, and must join anew")
    if command.state in (MemberState.JOINING, MemberState.REJOINING):
        return refused(state, Code.INVALID, f"a member is {command.state} by joining alone")
    if command.state is MemberState.LEAVING and _is_last(state, known):
        return _last(state, known)
    return Effect(_with(state, _in_state(known, command.state, command.reason[:MEMBER_TEXT_MAX_BYTES], when_ms)))


def remove(state: ControlState, command: RemoveMember) -> Effect:
    """Let a member go for good; what was answered to it is forgotten."""
    node_id = command.node_id
    known = state.members.get(node_id)
    if known is None:
        return Effect(state) if node_id in state.removed else _unknown(state, node_id)
    if _is_last(state, known):
        return _last(state, known)
    members = {each: member for each, member in state.members.items() if each != node_id}
    removed = (*(each for each in state.removed if each != node_id), node_id)[-REMOVED_NODES_MAX_COUNT:]
    return Effect(msgspec.structs.replace(state, members=members, removed=removed), forget=(node_id,))


def _newcomer(state: ControlState, command: AddMember, index: int, when_ms: int) -> Effect:
    node_id = command.node_id
    if command.extended and node_id in state.removed and not command.fresh:
        return refused(
            state, Code.LEFT, f"node {node_id} has left this cluster; it joins as a new node with an empty data directory"
        )
    if len(state.members) >= min(command.max_nodes, MAX_NODES_COUNT):
        return refused(state, Code.FULL, f"the cluster is full: it has {len(state.members)} members")
    removed = tuple(each for each in state.removed if each != node_id)
    taken = _with(state, _member(command, index, when_ms))
    return Effect(msgspec.structs.replace(taken, removed=removed))


def _restarted(state: ControlState, known: Member, command: AddMember) -> Effect:
    """Take what a member says of itself; its place and its state stay."""
    return Effect(
        _with(
            state,
            msgspec.structs.replace(
                known,
                address=command.address,
                node_type=command.node_type,
                capabilities=command.capabilities,
                name=command.name,
                client_address=command.client_address,
                boot=command.boot,
                extended=command.extended,
            ),
        )
    )


def _member(command: AddMember, index: int, when_ms: int) -> Member:
    return Member(
        node_id=command.node_id,
        address=command.address,
        node_type=command.node_type,
        capabilities=command.capabilities,
        name=command.name,
        client_address=command.client_address,
        boot=command.boot,
        extended=command.extended,
        since_index=index,
        changed_ms=when_ms,
    )


def _in_state(member: Member, state: MemberState, reason: str, when_ms: int) -> Member:
    if member.state is state:
        return member
    return msgspec.structs.replace(member, state=state, reason=reason, changed_ms=when_ms)


def _with(state: ControlState, member: Member) -> ControlState:
    """Return the state with a member; the same one where that changes nothing."""
    if state.members.get(member.node_id) == member:
        return state
    return msgspec.structs.replace(state, members={**state.members, member.node_id: member})


def _is_last(state: ControlState, leaving: Member) -> bool:
    """Whether nobody who could vote stays behind."""
    stay = (MemberState.JOINING, MemberState.UP, MemberState.DOWN)
    others = (member for member in state.members.values() if member.node_id != leaving.node_id)
    return leaving.may_vote and not any(member.may_vote and member.state in stay for member in others)


def _last(state: ControlState, member: Member) -> Effect:
    return refused(state, Code.LAST, f"node {member.node_id} is the last one that can vote, and cannot leave")


def _unknown(state: ControlState, node_id: int) -> Effect:
    return refused(state, Code.UNKNOWN, f"node {node_id} is no member")


def _too_long(text: str) -> bool:
    return len(text.encode()) > MEMBER_TEXT_MAX_BYTES


def _fault(command: AddMember) -> str:
    """Return what is wrong with a node's account of itself; empty where nothing is."""
    if not 0 < command.node_id < _ID_END:
        return f"{command.node_id} is no id of a node"
    if command.node_type not in _KINDS:
        return f"{command.node_type} is no type of a node"
    if any(_too_long(text) for text in (command.address, command.client_address, command.name)):
        return f"addresses and names have at most {MEMBER_TEXT_MAX_BYTES} bytes"
    if not 0 <= command.boot < _ID_END:
        return f"{command.boot} is no number of a start"
    return ""
