"""What the entries of the control plane do."""

from __future__ import annotations

import msgspec
import pytest

from hypercache.control.apply import apply_configuration, apply_encoded
from hypercache.control.commands import (
    AddMember,
    BeginPlan,
    Code,
    Command,
    CreateStore,
    DropStore,
    DropUser,
    EndPlan,
    FoundCluster,
    RemoveMember,
    SetMemberState,
    SetUser,
    UpdateMember,
    decode_command,
    decode_outcome,
    encode_command,
    encode_outcome,
    proposal,
)
from hypercache.control.entries import EntryKind, split_entry
from hypercache.control.state import ControlState, Level, MemberState, NodeKind
from hypercache.errors import MalformedMessageError
from hypercache.limits import (
    MAX_NODES_COUNT,
    REMOVED_NODES_MAX_COUNT,
    STORES_MAX_COUNT,
    USER_RULES_MAX_BYTES,
)
from tests.control.plane import CLUSTER, Plane, founded, node

# Founding


def test_a_cluster_is_founded_once() -> None:
    plane = founded()
    assert plane.state.cluster_id == CLUSTER
    assert plane.state.voters == (1,)
    assert plane.code(FoundCluster(CLUSTER + 1, node(2))) is Code.EXISTS
    assert plane.code(FoundCluster(0, node(2))) is Code.INVALID
    assert list(plane.state.members) == [1]


def test_founding_again_is_a_start_of_the_founder() -> None:
    plane = founded()
    assert plane.code(FoundCluster(CLUSTER, node(1, boot=2, address="10.0.0.9:1"))) is Code.OK
    assert (plane.state.members[1].boot, plane.state.members[1].address) == (2, "10.0.0.9:1")
    assert plane.state.cluster_id == CLUSTER


def test_a_founder_whose_account_of_itself_is_refused_founds_nothing() -> None:
    plane = Plane()
    assert plane.code(FoundCluster(CLUSTER, node(1, node_type=9))) is Code.INVALID
    assert plane.state == ControlState()


# Joining


def test_a_node_joins_and_the_ring_changes() -> None:
    plane = founded()
    before = plane.state
    applied = plane.apply(node(2, client_address="10.0.0.2:6379", capabilities=5))
    member = plane.state.members[2]
    assert (member.state, member.since_index, member.changed_ms) == (MemberState.JOINING, plane.index, plane.when_ms)
    assert (member.client_address, member.capabilities, member.name) == ("10.0.0.2:6379", 5, "n2")
    assert plane.state.version == before.version + 1
    assert plane.state.ring_version == before.ring_version + 1
    assert before.members.keys() == {1}
    assert applied.forget == ()


def test_joining_again_with_the_same_start_changes_nothing() -> None:
    plane = founded(2)
    before = plane.state
    assert plane.code(node(2)) is Code.OK
    assert plane.state is before


def test_a_restart_with_another_address_keeps_the_member_and_its_state() -> None:
    plane = founded(2)
    plane.apply(SetMemberState(2, MemberState.DOWN))
    ring = plane.state.ring_version
    assert plane.code(node(2, boot=2, address="10.9.9.9:7379")) is Code.OK
    member = plane.state.members[2]
    assert (member.boot, member.address, member.state, member.since_index) == (2, "10.9.9.9:7379", MemberState.DOWN, 2)
    assert plane.state.ring_version == ring + 1
    assert plane.code(node(2, boot=3, address="10.9.9.9:7379")) is Code.OK
    assert plane.state.ring_version == ring + 1


@pytest.mark.parametrize(
    "wrong",
    [
        node(0),
        node(1 << 64),
        node(2, node_type=0),
        node(2, node_type=4),
        node(2, boot=-1),
        node(2, name="ö" * 128),
        node(2, address="x" * 256),
        node(2, client_address="x" * 256),
    ],
    ids=str,
)
def test_what_no_node_can_be_is_refused(wrong: AddMember) -> None:
    assert founded().code(wrong) is Code.INVALID


def test_a_full_cluster_takes_nobody_but_its_members() -> None:
    plane = founded(3)
    assert plane.code(node(4, max_nodes=3)) is Code.FULL
    assert plane.code(node(3, boot=2, max_nodes=3)) is Code.OK
    assert plane.code(node(4, max_nodes=4)) is Code.OK


def test_no_settings_let_more_nodes_in_than_the_limit() -> None:
    plane = founded(MAX_NODES_COUNT)
    assert plane.code(node(5000, max_nodes=1 << 40)) is Code.FULL


def test_a_base_peer_joins_and_one_that_said_hello_is_never_taken_for_one() -> None:
    plane = founded()
    assert plane.code(node(2, extended=False, boot=0)) is Code.OK
    assert not plane.state.members[2].may_vote
    assert plane.code(node(2, extended=True, boot=4)) is Code.OK
    assert plane.state.members[2].may_vote
    assert plane.code(node(2, extended=False, boot=0)) is Code.INVALID


def test_only_cache_nodes_may_vote() -> None:
    plane = founded()
    plane.apply(node(2, node_type=NodeKind.PROXY))
    plane.apply(node(3, node_type=NodeKind.STORAGE))
    assert [member.may_vote for member in plane.state.members.values()] == [True, False, False]


# Coming back without a log (consistency.md, rule 14)


@pytest.mark.parametrize("back", [node(2, boot=5, fresh=True), node(2, boot=9, fresh=True), node(2, boot=4)], ids=str)
def test_who_comes_back_without_its_log_leaves_the_group_before_it_joins_anew(back: AddMember) -> None:
    plane = founded()
    plane.apply(node(2, boot=5))
    plane.apply(SetMemberState(2, MemberState.UP))
    plane.state = apply_configuration(plane.state, (1,), (2,))
    assert plane.code(back) is Code.REJOIN
    member = plane.state.members[2]
    assert (member.state, member.boot) == (MemberState.REJOINING, 5)
    version = plane.state.version
    assert plane.code(back) is Code.REJOIN
    assert plane.state.version == version
    # Nothing but leaving the group helps, not even a start that would be a later one.
    assert plane.code(node(2, boot=6)) is Code.REJOIN
    assert plane.code(SetMemberState(2, MemberState.UP)) is Code.STALE
    plane.state = apply_configuration(plane.state, (1,), ())
    applied = plane.apply(back)
    assert applied.outcome.ok
    member = plane.state.members[2]
    assert (member.state, member.boot, member.since_index) == (MemberState.JOINING, back.boot, plane.index)
    assert applied.forget == (2,)


def test_who_comes_back_without_its_log_and_was_not_in_the_group_joins_at_once() -> None:
    plane = founded(2)
    applied = plane.apply(node(2, boot=1, fresh=True))
    assert applied.outcome.ok
    assert applied.forget == (2,)


# States


def test_a_member_goes_down_and_comes_up_without_moving_the_ring() -> None:
    plane = founded(2)
    ring = plane.state.ring_version
    assert plane.code(SetMemberState(2, MemberState.DOWN, "silent")) is Code.OK
    member = plane.state.members[2]
    assert (member.state, member.reason, member.changed_ms) == (MemberState.DOWN, "silent", plane.when_ms)
    version = plane.state.version
    assert plane.code(SetMemberState(2, MemberState.DOWN, "still silent")) is Code.OK
    assert plane.state.version == version
    assert plane.code(SetMemberState(2, MemberState.UP)) is Code.OK
    assert plane.state.ring_version == ring


def test_a_state_is_not_changed_on_the_ground_of_one_that_is_past() -> None:
    plane = founded(2)
    plane.apply(SetMemberState(2, MemberState.LEAVING))
    assert plane.code(SetMemberState(2, MemberState.DOWN, was=MemberState.UP)) is Code.STALE
    assert plane.code(SetMemberState(2, MemberState.UP, was=MemberState.LEAVING)) is Code.OK


def test_nobody_is_put_into_a_state_that_joining_alone_brings_about() -> None:
    plane = founded(2)
    for state in (MemberState.JOINING, MemberState.REJOINING):
        assert plane.code(SetMemberState(2, state)) is Code.INVALID
    assert plane.code(SetMemberState(3, MemberState.UP)) is Code.UNKNOWN


def test_an_update_changes_what_it_names() -> None:
    plane = founded(2)
    ring = plane.state.ring_version
    assert plane.code(UpdateMember(2, client_address="c:1")) is Code.OK
    assert plane.state.ring_version == ring
    assert plane.code(UpdateMember(2, address="a:1")) is Code.OK
    assert plane.state.ring_version == ring + 1
    member = plane.state.members[2]
    assert (member.address, member.client_address, member.name) == ("a:1", "c:1", "n2")
    assert plane.code(UpdateMember(2, name="x" * 256)) is Code.INVALID
    assert plane.code(UpdateMember(3, name="x")) is Code.UNKNOWN


# Leaving


def test_who_is_removed_is_forgotten_and_comes_back_only_with_an_empty_data_directory() -> None:
    plane = founded(3)
    ring = plane.state.ring_version
    applied = plane.apply(RemoveMember(3))
    assert applied.forget == (3,)
    assert plane.state.removed == (3,)
    assert plane.state.ring_version == ring + 1
    assert plane.code(RemoveMember(3)) is Code.OK
    assert plane.code(RemoveMember(4)) is Code.UNKNOWN
    assert plane.code(node(3, boot=2)) is Code.LEFT
    assert plane.code(node(3, boot=1, fresh=True)) is Code.OK
    assert not plane.state.removed


def test_a_base_peer_that_was_removed_comes_back_as_it_is() -> None:
    plane = founded()
    plane.apply(node(2, extended=False, boot=0))
    plane.apply(RemoveMember(2))
    assert plane.code(node(2, extended=False, boot=0)) is Code.OK


def test_the_last_node_that_can_vote_stays() -> None:
    plane = founded(2)
    plane.apply(node(3, node_type=NodeKind.PROXY))
    assert plane.code(SetMemberState(2, MemberState.LEAVING)) is Code.OK
    assert plane.code(SetMemberState(1, MemberState.LEAVING)) is Code.LAST
    assert plane.code(RemoveMember(1)) is Code.LAST
    assert plane.code(RemoveMember(3)) is Code.OK
    assert plane.code(RemoveMember(2)) is Code.OK
    assert plane.code(RemoveMember(1)) is Code.LAST


def test_the_list_of_those_that_left_is_bounded() -> None:
    plane = founded()
    for node_id in range(2, REMOVED_NODES_MAX_COUNT + 5):
        plane.apply(node(node_id))
        plane.apply(RemoveMember(node_id))
    assert len(plane.state.removed) == REMOVED_NODES_MAX_COUNT
    assert plane.state.removed[-1] == REMOVED_NODES_MAX_COUNT + 4


# Stores


def test_a_store_is_made_and_dropped() -> None:
    plane = founded()
    ring = plane.state.ring_version
    assert plane.code(CreateStore("orders", "async", 2, 1 << 20, "lru", 5000)) is Code.OK
    store = plane.state.stores["orders"]
    assert (store.level, store.replicas, store.maxmemory, store.eviction, store.ttl_ms) == (Level.ASYNC, 2, 1 << 20, "lru", 5000)
    assert store.created_index == plane.index
    assert plane.code(CreateStore("orders", "raft")) is Code.EXISTS
    assert plane.code(DropStore("orders")) is Code.OK
    assert plane.code(DropStore("orders")) is Code.UNKNOWN
    assert plane.code(CreateStore("orders", "raft")) is Code.OK
    assert plane.state.stores["orders"].created_index != store.created_index
    assert plane.state.ring_version == ring


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (CreateStore("", "async"), Code.INVALID),
        (CreateStore("7", "async"), Code.INVALID),
        (CreateStore("7up", "async"), Code.INVALID),
        (CreateStore("a b", "async"), Code.INVALID),
        (CreateStore("a\n", "async"), Code.INVALID),
        (CreateStore("a" * 65, "async"), Code.INVALID),
        (CreateStore("a" * 64, "async"), Code.OK),
        (CreateStore("a.b:c_d-9", "async"), Code.OK),
        (CreateStore("default", "async"), Code.RESERVED),
        (CreateStore("db0", "async"), Code.RESERVED),
        (CreateStore("db99999", "async"), Code.RESERVED),
        (CreateStore("db1x", "async"), Code.OK),
        (CreateStore("bank", "strong"), Code.INVALID),
        (CreateStore("bank", "quorum"), Code.UNSUPPORTED),
        (CreateStore("bank", "raft", replicas=3), Code.INVALID),
        (CreateStore("bank", "async", replicas=17), Code.INVALID),
        (CreateStore("bank", "async", replicas=-1), Code.INVALID),
        (CreateStore("bank", "async", maxmemory=-1), Code.INVALID),
        (CreateStore("bank", "async", maxmemory=1 << 63), Code.INVALID),
        (CreateStore("bank", "async", ttl_ms=-1), Code.INVALID),
        (CreateStore("bank", "async", eviction="a\r\nb"), Code.INVALID),
        (DropStore("default"), Code.RESERVED),
        (DropStore("nowhere"), Code.UNKNOWN),
    ],
    ids=str,
)
def test_what_a_store_may_be(command: Command, code: Code) -> None:
    assert founded().code(command) is code


def test_there_are_only_so_many_stores() -> None:
    plane = founded()
    for number in range(STORES_MAX_COUNT):
        assert plane.code(CreateStore(f"s{number}", "async")) is Code.OK
    assert plane.code(CreateStore("more", "async")) is Code.FULL


def test_no_refusal_breaks_the_line_of_an_error() -> None:
    plane = founded()
    for name in ("a\r\nb", "\x00", "default\r\n"):
        for command in (CreateStore(name, "async"), DropStore(name), CreateStore("x", name), DropUser(name)):
            text = plane.apply(command).outcome.text
            assert text
            assert text.isprintable()


# Users and plans


def test_users_are_set_and_dropped() -> None:
    plane = founded()
    assert plane.code(SetUser("ada", b"on ~*")) is Code.OK
    version = plane.state.version
    assert plane.code(SetUser("ada", b"on ~*")) is Code.OK
    assert plane.state.version == version
    assert plane.code(SetUser("ada", b"off")) is Code.OK
    assert plane.state.users == {"ada": b"off"}
    assert plane.code(SetUser("", b"")) is Code.INVALID
    assert plane.code(SetUser("bob", b"x" * (USER_RULES_MAX_BYTES + 1))) is Code.INVALID
    assert plane.code(DropUser("ada")) is Code.OK
    assert plane.code(DropUser("ada")) is Code.UNKNOWN


def test_one_plan_at_a_time() -> None:
    plane = founded()
    assert plane.code(EndPlan(1)) is Code.UNKNOWN
    assert plane.code(BeginPlan("a node joined", b"...")) is Code.OK
    began = plane.index
    assert plane.state.plan is not None
    assert plane.state.plan.index == began
    assert plane.code(BeginPlan("another", b"")) is Code.PENDING
    assert plane.code(EndPlan(began + 1)) is Code.UNKNOWN
    assert plane.code(EndPlan(began)) is Code.OK
    assert plane.state.plan is None


# Entries


@pytest.mark.parametrize(
    "command",
    [
        node(3, fresh=True),
        FoundCluster(1 << 63, node((1 << 64) - 1)),
        UpdateMember(3, name=""),
        SetMemberState(3, MemberState.UP, "heard", MemberState.DOWN),
        RemoveMember(3),
        CreateStore("bank", "raft"),
        DropStore("bank"),
        SetUser("ada", b"\xff"),
        DropUser("ada"),
        BeginPlan("why", b"\x00"),
        EndPlan(3),
    ],
    ids=lambda command: type(command).__name__,
)
def test_every_command_comes_back_from_the_log_as_it_was(command: Command) -> None:
    assert decode_command(encode_command(command)) == command
    when, chance, kind, rest = split_entry(proposal(command))
    assert (when, chance, kind, decode_command(rest)) == (0, 0, EntryKind.CONTROL, command)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode_command(RemoveMember(3)) + b"x",
        msgspec.msgpack.encode({"type": "AbolishEverything"}),
        msgspec.msgpack.encode({"type": "RemoveMember", "node_id": "three"}),
        msgspec.msgpack.encode({"type": "DropStore"}) + b"",
    ],
    ids=repr,
)
def test_an_entry_that_cannot_be_read_is_refused_by_all_alike(data: bytes) -> None:
    state = founded().state
    applied = apply_encoded(state, data, 9, 0)
    assert applied.state is state
    assert applied.outcome.code is Code.MALFORMED
    with pytest.raises(MalformedMessageError):
        decode_command(data)


def test_an_outcome_comes_back_as_it_was() -> None:
    outcome = founded().apply(CreateStore("default", "raft")).outcome
    assert decode_outcome(encode_outcome(outcome)) == outcome
    with pytest.raises(MalformedMessageError):
        decode_outcome(b"\x93")
