"""What a leader does next: tables of what it sees and what it decides."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.control.commands import RemoveMember, SetMemberState
from hypercache.control.duties import ChangeGroup, Duty, GroupView, Policy, next_duty
from hypercache.control.state import ControlState, Member, MemberState, NodeKind, Plan

COMMIT = 10_000
STATES = {
    "j": MemberState.JOINING,
    "u": MemberState.UP,
    "d": MemberState.DOWN,
    "l": MemberState.LEAVING,
    "r": MemberState.REJOINING,
}


def cluster(states: str, voters: str, learners: str = "", **seen: Any) -> tuple[ControlState, GroupView]:
    """Return a cluster of nodes 1, 2 …, led by 1; all that are not down are heard, and all are level.

    Args:
        states: a letter a member, ``-`` for none; ``B`` is a base peer that is joining.
        voters: the digits of the voters.
        learners: the digits of the learners.
        seen: what is otherwise in the `GroupView`, or in the `ControlState`.
    """
    members = {}
    for node_id, letter in enumerate(states, 1):
        if letter != "-":
            held = STATES.get(letter.lower(), MemberState.JOINING)
            members[node_id] = Member(node_id, f"10.0.0.{node_id}:1", state=held, extended=letter != "B", boot=1)
    voting, learning = tuple(map(int, voters)), tuple(map(int, learners))
    of_state = {name: seen.pop(name) for name in ("plan", "removed") if name in seen}
    given: dict[str, Any] = {
        "commit": COMMIT,
        "match": {each: COMMIT for each in (*voting, *learning) if each != 1},
        "heard": {each for each, member in members.items() if member.state is not MemberState.DOWN},
        **seen,
    }
    state = ControlState(cluster_id=7, members=members, voters=voting, learners=learning, **of_state)
    return state, GroupView(1, voting, learning, **given)


def duty(states: str, voters: str, learners: str = "", policy: Policy | None = None, **seen: Any) -> Duty | None:
    state, view = cluster(states, voters, learners, **seen)
    return next_duty(state, view, policy or Policy())


def group(states: str, voters: str, learners: str = "", policy: Policy | None = None, **seen: Any) -> str | None:
    """Return the group that is wanted next, as "voters/learners"; None where it is as it should be."""
    wanted = duty(states, voters, learners, policy, **seen)
    if wanted is None:
        return None
    assert isinstance(wanted, ChangeGroup), wanted
    return "".join(map(str, wanted.voters)) + "/" + "".join(map(str, wanted.learners))


# Learners


@pytest.mark.parametrize(
    ("states", "voters", "learners", "wanted"),
    [
        ("u", "1", "", None),
        ("uj", "1", "", "1/2"),
        ("ujj", "1", "", "1/23"),
        ("uB", "1", "", None),
        ("ur", "1", "", None),
        ("ul", "1", "2", "1/"),
        ("ur", "1", "2", "1/"),
        ("u-", "1", "2", "1/"),
    ],
)
def test_members_of_the_cluster_learn_and_others_do_not(states: str, voters: str, learners: str, wanted: str | None) -> None:
    heard = {1} if states == "uB" else {1, 2, 3}
    assert group(states, voters, learners, heard=heard) == wanted


@pytest.mark.parametrize("kind", [NodeKind.PROXY, NodeKind.STORAGE])
def test_proxies_and_storage_nodes_do_not_learn(kind: int) -> None:
    state, view = cluster("uu", "1")
    members = {**state.members, 2: msgspec.structs.replace(state.members[2], node_type=kind)}
    assert next_duty(msgspec.structs.replace(state, members=members), view, Policy()) is None


def test_who_is_not_heard_is_not_made_a_learner_yet() -> None:
    assert group("uj", "1", heard={1}) is None


def test_a_member_that_was_down_long_before_it_could_learn_learns_once_it_is_heard() -> None:
    assert group("ud", "1", heard={1, 2}) == "1/2"


# Promotion


@pytest.mark.parametrize(
    ("states", "voters", "learners", "wanted"),
    [
        ("uu", "1", "2", "12/"),
        ("uuu", "1", "23", "123/"),
        ("uuu", "12", "3", "123/"),
        ("uuuu", "123", "4", None),
        ("uuuu", "1", "234", "123/4"),
        ("uuuuu", "123", "45", "12345/"),
        ("uuuuuuuuu", "123456", "789", "1234567/89"),
        ("uuuuuuuuu", "1234567", "89", None),
    ],
)
def test_level_learners_vote_in_odd_numbers_up_to_seven(states: str, voters: str, learners: str, wanted: str | None) -> None:
    assert group(states, voters, learners) == wanted


@pytest.mark.parametrize(
    ("limit", "wanted"), [(1, None), (2, "12/345"), (3, "123/45"), (4, "123/45"), (5, "12345/"), (9, "12345/")]
)
def test_settings_bound_the_voters(limit: int, wanted: str | None) -> None:
    assert group("uuuuu", "1", "2345", Policy(voters=limit)) == wanted


def test_the_most_level_learner_is_promoted() -> None:
    match = {2: COMMIT, 3: COMMIT - 30, 4: COMMIT - 10, 5: COMMIT - 20}
    assert group("uuuuu", "12", "345", Policy(voters=3), match=match) == "124/35"


@pytest.mark.parametrize(("lacks", "wanted"), [(0, "12/"), (1024, "12/"), (1025, None), (COMMIT, None)])
def test_a_learner_that_lacks_much_is_not_promoted(lacks: int, wanted: str | None) -> None:
    assert group("uu", "1", "2", match={2: COMMIT - lacks}) == wanted


def test_a_learner_whose_log_lacks_the_configuration_is_not_promoted() -> None:
    young: dict[str, Any] = {"commit": 20, "configured": 12}
    assert group("uuu", "1", "23", match={2: 11, 3: 11}, **young) is None
    assert group("uuu", "1", "23", match={2: 12, 3: 12}, **young) == "123/"


def test_a_learner_that_holds_nothing_is_never_level() -> None:
    assert group("uu", "1", "2", match={2: 0}, commit=5) is None


def test_a_learner_that_is_not_heard_is_not_promoted() -> None:
    assert group("uu", "1", "2", heard={1}) is None
    assert group("ud", "1", "2", match={2: 1}) is None


def test_nobody_becomes_a_voter_in_the_step_that_brings_it_into_the_group() -> None:
    assert group("uuju", "1", "2") == "1/234"


def test_nothing_is_changed_while_a_change_is_under_way() -> None:
    assert group("uuj", "1", "2", changing=True) is None
    assert duty("uul", "12", "", changing=True) is None


# Voters that are down


@pytest.mark.parametrize(
    ("states", "voters", "learners", "out", "wanted"),
    [
        ("uud", "123", "", {3: 60.0}, None),
        ("uudu", "123", "4", {3: 59.9}, None),
        ("uudu", "123", "4", {}, None),
        ("uudu", "123", "4", {3: 60.0}, "124/3"),
        ("uuudduu", "12345", "67", {4: 60.0, 5: 60.0}, "12367/45"),
        ("uuuddu", "12345", "6", {4: 60.0, 5: 60.0}, "123/456"),
        ("uuudd", "12345", "", {4: 60.0, 5: 60.0}, "123/45"),
        ("uuudd", "12345", "", {4: 60.0, 5: 10.0}, "123/45"),
        ("uuuud", "12345", "", {5: 60.0}, None),
        ("uuuuddd", "1234567", "", {5: 60.0, 6: 60.0, 7: 60.0}, "123/4567"),
        ("uuuuuud", "1234567", "", {7: 60.0}, None),
        ("uuudd", "123", "45", {4: 60.0, 5: 60.0}, None),
    ],
)
def test_a_voter_that_is_down_for_long_gives_up_its_vote_where_that_helps(
    states: str, voters: str, learners: str, out: dict[int, float], wanted: str | None
) -> None:
    assert group(states, voters, learners, down_seconds=out) == wanted


def test_a_voter_that_came_back_just_in_time_keeps_its_vote() -> None:
    assert group("uuuu", "123", "4", down_seconds={3: 60.0}) is None


def test_the_leader_keeps_its_vote_and_those_that_are_down_lose_theirs_first() -> None:
    assert group("uuuu", "1234", match={2: COMMIT, 3: COMMIT - 9, 4: COMMIT}) == "124/3"
    assert group("uuud", "1234", match={2: COMMIT, 3: COMMIT - 9, 4: COMMIT}) == "123/4"
    assert group("uuu", "123", policy=Policy(voters=1)) == "1/23"


# Leaving, removal, coming back without a log


@pytest.mark.parametrize("gone", ["l", "r", "-"])
def test_who_leaves_or_is_removed_or_lost_its_log_gives_up_its_vote(gone: str) -> None:
    assert group(f"uu{gone}", "123") == "12/"
    assert group(f"uu{gone}u", "123", "4") == "124/"
    assert group(f"u{gone}", "12") == "1/"


def test_a_dead_voter_that_is_removed_leaves_though_others_could_be_spared_no_more() -> None:
    assert group("uu-", "123", heard={1, 2}) == "12/"


def test_a_change_for_which_the_new_voters_have_no_majority_waits() -> None:
    # Node 3 leaves; with 2 not heard the two that stay could decide nothing.
    assert group("udl", "123", down_seconds={2: 5.0}) is None
    assert group("uul", "123", heard={1, 3}) is None
    # Once it counts as out, the leader goes on alone.
    assert group("udl", "123", down_seconds={2: 60.0}) == "1/2"


def test_a_leader_that_was_removed_hands_over() -> None:
    assert group("-uu", "123", removed=(1,), heard={2, 3}) == "23/"
    assert group("-u", "1", "2", removed=(1,), heard={2}) == "2/"
    # Its proposals count for nothing.
    assert group("-uj", "123", removed=(1,), heard={2, 3}) == "23/"


def test_a_founder_does_nothing_before_it_is_a_member() -> None:
    assert duty("-", "1") is None
    assert duty("-u", "1", heard={2}) is None


def test_who_wanted_to_leave_is_let_go_once_it_has_no_part_in_the_group() -> None:
    assert group("uul", "123") == "12/"
    assert duty("uul", "12") == RemoveMember(3)
    assert duty("uul", "12", plan=Plan(1, "", b"")) is None
    state, view = cluster("uul", "12")
    # The removal from the group is in the leader's log, but not applied here.
    assert next_duty(msgspec.structs.replace(state, voters=(1, 2, 3)), view, Policy()) is None


# Down and up


@pytest.mark.parametrize(
    ("states", "suspects", "judged"),
    [
        ("uuu", {3: {1, 2}}, "down"),
        ("uuu", {3: {1}}, None),
        ("uuu", {3: {3}}, None),
        ("uuj", {3: {1, 2}}, "down"),
        ("uul", {3: {1, 2}}, None),
        ("uur", {3: {1, 2}}, None),
        ("uud", {3: {1, 2}}, None),
        ("udu", {3: {1}}, "down"),
        ("uuu", {3: {7, 8, 9}}, None),
    ],
)
def test_a_majority_of_the_voters_that_are_up_puts_a_member_down(
    states: str, suspects: dict[int, set[int]], judged: str | None
) -> None:
    heard = {each for each, letter in enumerate(states, 1) if letter != "d"}
    found = duty(states, "123", suspects=suspects, heard=heard, changing=True)
    if judged is None:
        assert found is None
    else:
        assert isinstance(found, SetMemberState)
        assert (found.node_id, found.state, found.was) == (3, MemberState.DOWN, STATES[states[2]])
        assert found.reason.startswith("not heard by 1")


def test_in_a_larger_group_the_majority_is_that_of_the_others() -> None:
    assert duty("uuuuu", "12345", suspects={5: {1, 2}}) is None
    found = duty("uuuuu", "12345", suspects={5: {1, 2, 3}})
    assert isinstance(found, SetMemberState)
    assert found.node_id == 5


def test_learners_have_no_say_in_who_is_down() -> None:
    assert duty("uuuuu", "123", "45", suspects={3: {1, 4, 5}}, policy=Policy(voters=3)) is None


def test_nobody_puts_its_leader_down() -> None:
    assert duty("uuu", "123", suspects={1: {2, 3}}) is None


@pytest.mark.parametrize(
    ("states", "seen", "up"),
    [
        ("uuj", {}, True),
        ("uud", {"heard": {1, 2, 3}}, True),
        ("uud", {"heard": {1, 2}}, False),
        ("uuj", {"heard": {1, 2}}, False),
        ("uud", {"heard": {1, 2, 3}, "suspects": {3: {1, 2}}}, False),
        ("uud", {"heard": {1, 2, 3}, "suspects": {3: {2}}}, True),
        ("uud", {"heard": {1, 2, 3}, "match": {2: COMMIT, 3: 7}}, False),
        ("uuB", {}, True),
        ("uuB", {"heard": {1, 2}}, False),
    ],
)
def test_who_is_heard_and_level_comes_up(states: str, seen: dict[str, Any], up: bool) -> None:
    found = duty(states, "12" if states[2] == "B" else "123", changing=True, **seen)
    if up:
        assert found == SetMemberState(3, MemberState.UP, "heard", STATES.get(states[2], MemberState.JOINING))
    else:
        assert found is None


def test_a_leader_is_up() -> None:
    assert duty("j", "1") == SetMemberState(1, MemberState.UP, "heard", MemberState.JOINING)
    assert duty("du", "12") == SetMemberState(1, MemberState.UP, "heard", MemberState.DOWN)


# All of it together


def alive(state: ControlState, view: GroupView, nodes: tuple[int, ...]) -> int:
    return sum(
        each == view.node_id or (each in view.heard and each in state.members and state.members[each].state is not MemberState.DOWN)
        for each in nodes
    )


@st.composite
def clusters(draw: st.DrawFn) -> tuple[ControlState, GroupView]:
    states = draw(st.text("jjuuuudlr-", min_size=1, max_size=9))
    nodes = range(2, len(states) + 1)
    voters = draw(st.sets(st.sampled_from(nodes), max_size=6)) if nodes else set()
    learners = (draw(st.sets(st.sampled_from(nodes))) if nodes else set()) - voters
    voters |= {1}
    return cluster(
        states,
        "".join(map(str, sorted(voters))),
        "".join(map(str, sorted(learners))),
        removed=tuple(each for each, letter in enumerate(states, 1) if letter == "-"),
        heard=draw(st.sets(st.sampled_from(range(1, len(states) + 1)))),
        match={each: draw(st.sampled_from([0, 5, COMMIT - 3, COMMIT])) for each in voters | learners if each != 1},
        down_seconds={each: draw(st.sampled_from([0.0, 59.0, 61.0])) for each, letter in enumerate(states, 1) if letter == "d"},
    )


@given(clusters(), st.integers(1, 9))
def test_whatever_is_seen_a_change_is_sound_and_the_duties_come_to_an_end(seen: tuple[ControlState, GroupView], limit: int) -> None:
    state, view = seen
    policy = Policy(voters=limit)
    for _ in range(40):
        found = next_duty(state, view, policy)
        if found is None:
            break
        if isinstance(found, SetMemberState):
            member = msgspec.structs.replace(state.members[found.node_id], state=found.state)
            state = msgspec.structs.replace(state, members={**state.members, found.node_id: member})
            continue
        if isinstance(found, RemoveMember):
            assert found.node_id not in (*view.voters, *view.learners)
            members = {each: member for each, member in state.members.items() if each != found.node_id}
            state = msgspec.structs.replace(state, members=members, removed=(*state.removed, found.node_id))
            continue
        assert found.voters
        assert not set(found.voters) & set(found.learners)
        assert list(found.voters) == sorted(set(found.voters))
        assert len(found.voters) <= 7
        if found.voters != view.voters:
            # Voters change without newcomers, and to such as can decide.
            assert {*found.voters, *found.learners} <= {*view.voters, *view.learners}
            assert alive(state, view, found.voters) > len(found.voters) // 2
        view = msgspec.structs.replace(view, voters=found.voters, learners=found.learners)
        state = msgspec.structs.replace(state, voters=found.voters, learners=found.learners)
        if 1 not in found.voters:
            break
    else:
        pytest.fail("the leader never comes to rest")
