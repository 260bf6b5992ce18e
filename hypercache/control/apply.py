"""One entry of the control plane applied: the same entries give every member the same state and the same answers.

Nothing here raises: what cannot be done is an answer, and an entry that cannot be read is refused by all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.control import definitions, members
from hypercache.control.commands import (
    AddMember,
    BeginPlan,
    Code,
    CreateStore,
    DropStore,
    DropUser,
    EndPlan,
    FoundCluster,
    Outcome,
    RemoveMember,
    SetMemberState,
    SetUser,
    UpdateMember,
    decode_command,
)
from hypercache.control.effects import Effect, refused
from hypercache.errors import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from hypercache.control.commands import Command
    from hypercache.control.state import ControlState


class Applied(msgspec.Struct, frozen=True):
    """What an entry came to.

    Attributes:
        state: the state behind it; the same one where nothing changed.
        outcome: what its proposer is answered.
        forget: the clients whose answers are forgotten by now (`hypercache.raft.sessions.Sessions.forget`).
    """

    state: ControlState
    outcome: Outcome
    forget: tuple[int, ...] = ()


def apply(state: ControlState, command: Command, index: int, when_ms: int) -> Applied:
    """Apply a command.

    Args:
        state: the state before it.
        command: what is asked.
        index: the entry's place in the log.
        when_ms: when the leader proposed it, Unix milliseconds.
    """
    return _versioned(state, _RULES[type(command)](state, command, index, when_ms), index)


def apply_encoded(state: ControlState, data: bytes, index: int, when_ms: int) -> Applied:
    """Apply the command that an entry holds (`hypercache.control.commands.encode_command`); arguments as for `apply`."""
    try:
        command = decode_command(data)
    except MalformedMessageError as error:
        return _versioned(state, refused(state, Code.MALFORMED, str(error)), index)
    return apply(state, command, index, when_ms)


def apply_configuration(state: ControlState, voters: tuple[int, ...], learners: tuple[int, ...]) -> ControlState:
    """Take note of a committed configuration of the group that is not joint."""
    if (voters, learners) == (state.voters, state.learners):
        return state
    return msgspec.structs.replace(state, voters=voters, learners=learners, version=state.version + 1)


def _versioned(before: ControlState, effect: Effect, index: int) -> Applied:
    state = effect.state
    if state is not before:
        ring = before.ring_version + (_ring(before) != _ring(state))
        state = msgspec.structs.replace(state, version=before.version + 1, ring_version=ring)
    return Applied(state, Outcome(effect.code, effect.text, index, state.version), effect.forget)


def _ring(state: ControlState) -> dict[int, str]:
    """Return what a HashRingUpdate shows."""
    return {node_id: member.address for node_id, member in state.members.items()}


_RULES: Final[Mapping[type, Callable[[ControlState, Any, int, int], Effect]]] = {
    AddMember: members.add,
    FoundCluster: members.found,
    UpdateMember: lambda state, command, index, when_ms: members.update(state, command),
    SetMemberState: lambda state, command, index, when_ms: members.set_state(state, command, when_ms),
    RemoveMember: lambda state, command, index, when_ms: members.remove(state, command),
    CreateStore: lambda state, command, index, when_ms: definitions.create_store(state, command, index),
    DropStore: lambda state, command, index, when_ms: definitions.drop_store(state, command),
    SetUser: lambda state, command, index, when_ms: definitions.set_user(state, command),
    DropUser: lambda state, command, index, when_ms: definitions.drop_user(state, command),
    BeginPlan: lambda state, command, index, when_ms: definitions.begin_plan(state, command, index),
    EndPlan: lambda state, command, index, when_ms: definitions.end_plan(state, command),
}
