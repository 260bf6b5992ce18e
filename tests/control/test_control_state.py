"""The control plane in a snapshot, and as one node holds it."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.control.commands import (
    AddMember,
    BeginPlan,
    Command,
    CreateStore,
    DropStore,
    RemoveMember,
    SetMemberState,
    SetUser,
    decode_outcome,
    encode_command,
)
from hypercache.control.machine import ControlMachine
from hypercache.control.state import ControlState, MemberState, decode_state, encode_state
from hypercache.errors import MalformedMessageError
from tests.control.plane import Plane, founded, node

COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        AddMember,
        st.integers(0, 6),
        st.sampled_from(["", "a:1", "b:2"]),
        boot=st.integers(0, 3),
        extended=st.booleans(),
        fresh=st.booleans(),
        max_nodes=st.integers(1, 5),
    ),
    st.builds(SetMemberState, st.integers(1, 6), st.sampled_from(MemberState)),
    st.builds(RemoveMember, st.integers(1, 6)),
    st.builds(CreateStore, st.sampled_from(["a", "b", "default"]), st.sampled_from(["async", "raft", "quorum"])),
    st.builds(DropStore, st.sampled_from(["a", "b"])),
    st.builds(SetUser, st.sampled_from(["x", "y"]), st.binary(max_size=2)),
)


def test_a_snapshot_holds_all_of_the_state() -> None:
    plane = founded(3)
    for command in (
        SetMemberState(2, MemberState.DOWN, "silent"),
        RemoveMember(3),
        CreateStore("bank", "raft"),
        SetUser("ada", b"on"),
        BeginPlan("why", b"\x00\xff"),
    ):
        plane.apply(command)
    state = msgspec.structs.replace(plane.state, voters=(1, 2), learners=(4,))
    # Every field is there to be lost.
    assert all(getattr(state, field) for field in state.__struct_fields__)
    assert decode_state(encode_state(state)) == state


def test_equal_states_have_equal_bytes_in_whichever_order_they_came_about() -> None:
    commands: list[Command] = [
        node(2),
        node(3),
        CreateStore("a", "async"),
        CreateStore("b", "async"),
        SetUser("x", b""),
        SetUser("y", b""),
    ]
    made = set()
    for order in permutations(commands):
        plane = Plane()
        for command in order:
            plane.apply(command)
        state = plane.state
        members = {each: msgspec.structs.replace(known, since_index=0, changed_ms=0) for each, known in state.members.items()}
        stores = {each: msgspec.structs.replace(known, created_index=0) for each, known in state.stores.items()}
        made.add(encode_state(msgspec.structs.replace(state, members=members, stores=stores)))
    assert len(made) == 1


@pytest.mark.parametrize(
    "damage", [b"", b"\xc1", b"\x80", encode_state(founded(2).state)[:-1], encode_state(founded(2).state) + b"\x00"]
)
def test_a_damaged_snapshot_is_refused(damage: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        decode_state(damage)


@given(st.lists(COMMANDS, max_size=30), st.integers(0, 30))
def test_a_node_that_begins_from_a_snapshot_comes_to_the_same_state_and_the_same_answers(commands: list[Command], at: int) -> None:
    whole, restored = ControlMachine(), ControlMachine()
    for index, command in enumerate(commands, 1):
        if index == at + 1:
            restored.adopt(ControlMachine.load(whole.freeze()))
        before = whole.state
        kept = encode_state(before)
        answer = whole.apply(index, index, encode_command(command))
        assert encode_state(before) == kept
        assert whole.state.version == before.version + (whole.state is not before)
        ring = {each: member.address for each, member in whole.state.members.items()}
        moved = ring != {each: member.address for each, member in before.members.items()}
        assert whole.state.ring_version == before.ring_version + moved
        assert decode_outcome(answer).version == whole.state.version
        if index > at:
            assert restored.apply(index, index, encode_command(command)) == answer
    if len(commands) > at:
        assert restored.freeze() == whole.freeze()


def test_a_machine_tells_of_changes_and_of_nothing_else() -> None:
    machine = ControlMachine()
    seen: list[tuple[int, int]] = []
    machine.changed = lambda before, behind: seen.append((before.version, behind.version))
    machine.apply(1, 0, encode_command(node(1)))
    machine.apply(2, 0, encode_command(node(1)))
    machine.membership_changed((1,), ())
    machine.membership_changed((1,), ())
    machine.apply(3, 0, b"\xc1")
    assert seen == [(0, 1), (1, 2)]
    machine.adopt(ControlState(version=9))
    assert seen[2:] == [(2, 9)]


def test_members_are_known_and_before_there_are_any_everybody_is() -> None:
    machine = ControlMachine()
    assert machine.knows(5)
    machine.apply(1, 0, encode_command(node(1)))
    machine.apply(2, 0, encode_command(node(2)))
    assert (machine.knows(1), machine.knows(5)) == (True, False)
    machine.apply(3, 0, encode_command(RemoveMember(2)))
    assert not machine.knows(2)
    assert machine.take_forgotten() == (2,)
    assert machine.take_forgotten() == ()
