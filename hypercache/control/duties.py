"""What a leader does next for the group: pure decisions, from the agreed state and from what this leader sees.

One duty at a time; each is committed, or given up, before the next is looked for. What is done shows in the state or in the
configuration, and so none is done twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.control.commands import RemoveMember, SetMemberState
from hypercache.control.state import MemberState
from hypercache.limits import RAFT_LEVEL_ENTRIES_COUNT, RAFT_OUT_AFTER_SECONDS, RAFT_VOTERS_MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hypercache.control.state import ControlState, Member

_BELONGS: Final = (MemberState.JOINING, MemberState.UP, MemberState.DOWN)


class Policy(msgspec.Struct, frozen=True):
    """What the operator wishes of the group.

    Attributes:
        voters: how many voters there may be, at most 7.
        out_after_seconds: how long a voter may be down before another takes its place.
        level_entries: a follower that lacks no more of what is committed is level.
    """

    voters: int = RAFT_VOTERS_MAX_COUNT
    out_after_seconds: float = RAFT_OUT_AFTER_SECONDS
    level_entries: int = RAFT_LEVEL_ENTRIES_COUNT


class GroupView(msgspec.Struct, frozen=True):
    """What a leader sees of its group.

    Attributes:
        node_id: the leader.
        voters, learners: the latest configuration in its log.
        changing: whether that is joint, or not applied here yet: it cannot be changed now.
        configured: the entry of that configuration; a follower that lacks it may know of none, and then grants no vote.
        commit: the commit index.
        match: how far each follower has the log; 0 for one that is sent a snapshot.
        heard: the members that this leader hears.
        suspects: who is suspected, and by which voters.
        down_seconds: for how long this leader has seen each member down.
    """

    node_id: int
    voters: tuple[int, ...]
    learners: tuple[int, ...] = ()
    changing: bool = False
    configured: int = 0
    commit: int = 0
    match: Mapping[int, int] = {}
    heard: Collection[int] = frozenset()
    suspects: Mapping[int, Collection[int]] = {}
    down_seconds: Mapping[int, float] = {}


class ChangeGroup(msgspec.Struct, frozen=True):
    """The group should consist of these."""

    voters: tuple[int, ...]
    learners: tuple[int, ...]


Duty = SetMemberState | RemoveMember | ChangeGroup


def next_duty(state: ControlState, view: GroupView, policy: Policy) -> Duty | None:
    """Return what the leader should do next; None where all is as it should be."""
    if view.node_id not in state.members:
        # The founder is no member before its own entry is applied; of a leader that was removed proposals count for nothing, and
        # all that is left to it is to hand over.
        return _change_group(state, view, policy) if view.node_id in state.removed else None
    return _judge_members(state, view, policy) or _change_group(state, view, policy) or _let_go(state, view)


# Who is up, who is down


def _judge_members(state: ControlState, view: GroupView, policy: Policy) -> SetMemberState | None:
    for node_id in sorted(state.members):
        member = state.members[node_id]
        if member.state not in _BELONGS:
            continue
        suspected = node_id != view.node_id and _majority_suspects(state, view, node_id)
        if suspected and member.state is not MemberState.DOWN:
            doubters = ", ".join(str(each) for each in sorted(view.suspects[node_id]))
            return SetMemberState(node_id, MemberState.DOWN, f"not heard by {doubters}", member.state)
        if not suspected and member.state is not MemberState.UP and _serves(view, policy, member):
            return SetMemberState(node_id, MemberState.UP, "heard", member.state)
    return None


def _majority_suspects(state: ControlState, view: GroupView, node_id: int) -> bool:
    """Whether a majority of the voters that are up, without the node itself, suspects it."""
    judges = [voter for voter in view.voters if voter != node_id and not _is_down(state, voter)]
    doubters = view.suspects.get(node_id, ())
    return sum(judge in doubters for judge in judges) > len(judges) // 2


def _serves(view: GroupView, policy: Policy, member: Member) -> bool:
    """Whether a member can be held to be up: it is heard, and has the log where it should have it."""
    if member.node_id == view.node_id:
        return True
    return member.node_id in view.heard and (not member.may_vote or _is_level(view, policy, member.node_id))


def _is_level(view: GroupView, policy: Policy, node_id: int) -> bool:
    if node_id == view.node_id:
        return True
    match = view.match.get(node_id, 0)
    return match > 0 and match >= view.configured and match + policy.level_entries >= view.commit


def _is_down(state: ControlState, node_id: int) -> bool:
    member = state.members.get(node_id)
    return member is None or member.state is MemberState.DOWN


# Who is in the group


def _change_group(state: ControlState, view: GroupView, policy: Policy) -> ChangeGroup | None:
    if view.changing:
        return None
    belongs = {node_id for node_id, member in state.members.items() if member.may_vote and member.state in _BELONGS}
    # Learners come and go by themselves, in one step; only who is a learner already becomes a voter. So no configuration that is
    # joint has a newcomer, and `ControlState.learners` names all who may have acknowledged something (consistency.md, rule 14).
    learners = {each for each in view.learners if each in belongs}
    learners |= {each for each in belongs if each in view.heard and each not in view.voters}
    if learners != set(view.learners):
        return ChangeGroup(view.voters, tuple(sorted(learners)))
    voters = _wanted_voters(state, view, policy, belongs)
    if not voters or voters == set(view.voters):
        return None
    learners = {each for each in (*view.voters, *view.learners) if each in belongs and each not in voters}
    return ChangeGroup(tuple(sorted(voters)), tuple(sorted(learners)))


def _wanted_voters(state: ControlState, view: GroupView, policy: Policy, belongs: Collection[int]) -> set[int]:
    """Return who should vote: an odd number, those that do already where they can stay."""
    present = [voter for voter in view.voters if voter in belongs]
    out = {voter for voter in present if view.down_seconds.get(voter, -1.0) >= policy.out_after_seconds}
    stay = _worthiest(state, view, (voter for voter in present if voter not in out))
    ready = _worthiest(state, view, (each for each in view.learners if _lives(state, view, each) and _is_level(view, policy, each)))
    limit = min(policy.voters, RAFT_VOTERS_MAX_COUNT)
    wanted = [*stay, *ready][: _odd(min(limit, len(stay) + len(ready)))]
    if out and _deaths_survived(state, view, wanted) <= _deaths_survived(state, view, present):
        # Nobody could take the places of those that are out: they keep them.
        wanted = present
    # A change that the new voters have no majority for would hold up everything until they have.
    return set(wanted) if _deaths_survived(state, view, wanted) >= 0 else set()


def _worthiest(state: ControlState, view: GroupView, nodes: Iterable[int]) -> list[int]:
    """Return nodes in the order in which they should vote: the leader, who is up, who has most of the log."""
    return sorted(nodes, key=lambda node: (node != view.node_id, _is_down(state, node), -view.match.get(node, 0), node))


def _odd(count: int) -> int:
    """Return how many of so many should vote: an even number survives no more deaths than one less, but two are better than one."""
    return count if count <= 2 else count - 1 + count % 2


def _lives(state: ControlState, view: GroupView, node_id: int) -> bool:
    return node_id == view.node_id or (node_id in view.heard and not _is_down(state, node_id))


def _deaths_survived(state: ControlState, view: GroupView, voters: Collection[int]) -> int:
    """Return how many more voters can die before a majority is lost; below 0 it is lost already."""
    return sum(_lives(state, view, voter) for voter in voters) - (len(voters) // 2 + 1)


def _let_go(state: ControlState, view: GroupView) -> RemoveMember | None:
    """Remove who wanted to leave, and has no part in the group any more."""
    if state.plan is not None or view.changing:
        return None
    for node_id in sorted(state.members):
        leaves = state.members[node_id].state is MemberState.LEAVING
        if leaves and not state.in_group(node_id) and node_id not in view.voters and node_id not in view.learners:
            return RemoveMember(node_id)
    return None
