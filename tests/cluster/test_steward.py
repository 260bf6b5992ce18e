"""What a node does for its group: founding, joining, suspicion, replacing, leaving; with the real driver and core."""

from __future__ import annotations

import random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from hypercache.cluster.steward import Steward
from hypercache.control.commands import (
    AddMember,
    BeginPlan,
    Code,
    Command,
    EndPlan,
    FoundCluster,
    RemoveMember,
    SetMemberState,
    UpdateMember,
    decode_command,
)
from hypercache.control.entries import split_entry
from hypercache.control.state import ControlState, Member, MemberState
from hypercache.errors import OutcomeUnknownError
from hypercache.handlers.suspicion import SuspicionHandler
from hypercache.raft import Configuration, Options, ProgressState, Raft, SnapshotMeta, State
from hypercache.wire.messages import SuspectedNode, Suspicion
from tests.cluster.stewards import BEAT_SECONDS, CLUSTER, OUT_SECONDS, Net, Node

UP, DOWN = MemberState.UP, MemberState.DOWN


def three(**policy: Any) -> Net:
    """Return a cluster of three, all of which vote."""
    return cluster(3, **policy)


def cluster(count: int, **policy: Any) -> Net:
    net = Net(**policy)
    net.found()
    for node_id in range(2, count + 1):
        net.join(node_id)
    wanted = min(count - 1 + count % 2, net.policy.voters)
    net.until(lambda: set(net.states().values()) == {UP})
    # While the change is joint the founder alone is the old majority.
    net.until(lambda: all(len(node.state.voters) == wanted for node in net.nodes.values()))
    return net


# Founding and joining


def test_a_founder_founds_its_cluster_and_is_up() -> None:
    net = Net()
    one = net.found()
    net.until(lambda: net.states() == {1: UP})
    assert one.state.cluster_id == CLUSTER
    assert (one.state.members[1].address, one.state.members[1].boot) == ("10.0.0.1:7379", 1)
    log = one.driver.raft.log.last_index
    net.run(5)
    assert one.driver.raft.log.last_index == log


def test_nodes_that_join_learn_and_then_vote() -> None:
    net = Net()
    net.found()
    net.join(2)
    net.until(lambda: net.voters() == (1, 2))
    net.join(3)
    net.until(lambda: net.voters() == (1, 2, 3))
    net.join(4)
    net.until(lambda: net.learners() == (4,) and set(net.states().values()) == {UP})
    net.run(3)
    assert net.voters() == (1, 2, 3)
    net.join(5)
    net.until(lambda: net.voters() == (1, 2, 3, 4, 5))
    for node in net.nodes.values():
        net.until(lambda node=node: node.state.voters == (1, 2, 3, 4, 5))  # type: ignore[misc]
        assert node.state == net.leader.state
        assert node.failures == []


def test_a_base_peer_is_up_once_it_is_heard_and_never_learns() -> None:
    net = Net()
    one = net.found()
    assert one.propose(AddMember(9, "10.0.0.9:1", extended=False)).ok
    net.run(3)
    assert net.states()[9] is MemberState.JOINING
    net.nodes[9] = peer = Node(net, 9, ())
    peer.alive, peer.heard = True, {}
    net.until(lambda: net.states()[9] is UP)
    assert net.learners() == ()


@pytest.mark.parametrize("host", ["10.0.0.1", "10.1.1.1"])
def test_a_leader_that_starts_again_says_so_itself(host: str) -> None:
    net = Net()
    one = net.found()
    net.until(lambda: net.states() == {1: UP})
    one.kill()
    one.host = host
    one.start()
    proposed = one.driver.raft.log.last_index
    net.until(lambda: 1 in one.state.members and one.state.members[1].boot == 2)
    assert one.state.members[1].address == f"{host}:7379"
    # An entry of its term, one that says it has started; nothing of what it had not applied yet.
    net.run(3)
    assert one.driver.raft.log.last_index == proposed + 2


def test_what_the_cluster_holds_of_its_leader_is_put_right() -> None:
    net = three()
    leader = net.leader
    assert leader.propose(UpdateMember(leader.node_id, address="nowhere:1")).ok
    net.until(lambda: leader.state.members[leader.node_id].address == f"{leader.host}:7379")


# Suspicion


def test_a_node_that_dies_is_down_within_seconds_and_up_when_it_is_back() -> None:
    net = three()
    net.nodes[3].kill()
    net.until(lambda: net.states()[3] is DOWN, 5)
    assert net.leader.state.members[3].reason == "not heard by 1, 2"
    assert net.voters() == (1, 2, 3)
    net.nodes[3].start()
    net.until(lambda: net.states()[3] is UP, 5)


def test_a_node_that_is_stopped_is_down_though_its_links_live() -> None:
    net = three()
    net.mute.add(3)
    net.until(lambda: 3 in net.leader.steward.suspects)
    assert set(net.leader.steward.view().heard) == {1, 2}
    net.until(lambda: net.states()[3] is DOWN, 3)
    net.mute.clear()
    net.until(lambda: net.states()[3] is UP)


def test_a_leader_that_dies_is_down_under_the_next_one() -> None:
    net = three()
    assert net.leader.node_id == 1
    net.nodes[1].kill()
    net.until(lambda: net.leader.node_id != 1 and net.states()[1] is DOWN, 15)


def test_one_node_that_hears_nobody_brings_nobody_down() -> None:
    net = three()
    net.cut.add(3)
    net.run(5)
    assert net.states() == {1: UP, 2: UP, 3: DOWN}
    assert net.nodes[3].steward.suspects == {1, 2}
    net.cut.clear()
    net.until(lambda: net.states() == {1: UP, 2: UP, 3: UP})
    net.until(lambda: net.nodes[3].steward.suspects == set())


def test_a_single_voter_that_suspects_brings_nobody_down() -> None:
    net = three()
    follower = net.nodes[2]
    for _ in range(20):
        net.leader.steward.suspected(2, Suspicion((SuspectedNode(3),)))
        net.run(BEAT_SECONDS)
    assert net.states()[3] is UP
    assert net.leader.steward.doubts() == {3: {2}}
    assert follower.steward.doubts() == {}


def test_suspicions_are_told_while_there_are_any_and_once_more() -> None:
    net = three()
    net.run(5)
    assert all(node.told == [] for node in net.nodes.values())
    net.nodes[3].kill()
    net.until(lambda: net.nodes[2].told)
    net.run(5)
    told = net.nodes[2].told
    assert set(told) == {(1, Suspicion((SuspectedNode(3),)))}
    assert len(told) >= 9
    net.nodes[3].start()
    net.until(lambda: told[-1] == (1, Suspicion(())))
    said = len(told)
    net.run(5)
    assert len(told) == said
    assert net.leader.steward.doubts() == {}


def test_a_suspicion_that_is_not_repeated_is_forgotten() -> None:
    net = three()
    net.leader.steward.suspected(2, Suspicion((SuspectedNode(3),)))
    net.run(2.5)
    assert net.leader.steward.doubts() == {3: {2}}
    net.run(1)
    assert net.leader.steward.doubts() == {}


def test_strangers_are_neither_believed_nor_suspected() -> None:
    net = three()
    net.leader.steward.suspected(9, Suspicion((SuspectedNode(3),)))
    net.leader.steward.suspected(2, Suspicion((SuspectedNode(9), SuspectedNode(3))))
    assert net.leader.steward.doubts() == {3: {2}}


def test_a_node_that_was_stopped_suspects_nobody_when_it_goes_on() -> None:
    net = three()
    follower = net.nodes[2]
    follower.steward.stop()
    net.clock.advance(60.0)
    follower.steward._looking.start(BEAT_SECONDS)
    assert follower.steward.suspects == set()


# Replacing, leaving, coming back


def test_a_voter_that_is_down_for_long_is_replaced_and_comes_back_as_a_learner() -> None:
    net = cluster(4)
    dead = net.nodes[3]
    assert net.voters() == (1, 2, 3)
    dead.kill()
    net.until(lambda: net.states()[3] is DOWN)
    net.run(OUT_SECONDS - 2)
    assert net.voters() == (1, 2, 3)
    net.until(lambda: net.voters() == (1, 2, 4), 5)
    assert net.learners() == (3,)
    dead.start()
    net.until(lambda: net.states()[3] is UP)
    net.run(3)
    assert (net.voters(), net.learners()) == ((1, 2, 4), (3,))


def test_for_how_long_a_voter_is_down_is_counted_anew_by_each_leader() -> None:
    net = cluster(4)
    assert net.leader.node_id == 1
    net.nodes[3].kill()
    net.until(lambda: net.states()[3] is DOWN)
    net.leader.driver.transfer(2)
    net.until(lambda: net.leader.node_id == 2)
    net.run(OUT_SECONDS - 3)
    net.nodes[3].start()
    net.until(lambda: net.states()[3] is UP)
    net.nodes[3].kill()
    net.until(lambda: net.states()[3] is DOWN)
    net.leader.driver.transfer(1)
    net.until(lambda: net.leader.node_id == 1)
    # What the first leader saw in its first term is past.
    net.run(OUT_SECONDS - 3)
    assert net.voters() == (1, 2, 3)
    net.until(lambda: net.voters() == (1, 2, 4), 5)


def test_a_follower_that_is_sent_a_snapshot_is_not_level() -> None:
    net = three()
    raft = net.leader.driver.raft
    assert net.leader.steward.view().match[3] > 0
    raft.progress[3].state = ProgressState.SNAPSHOT
    assert net.leader.steward.view().match[3] == 0


def test_a_change_that_is_under_way_is_waited_for_in_silence() -> None:
    said: list[Any] = []
    observe: Any = said.append
    globalLogPublisher.addObserver(observe)
    try:
        net = cluster(5)
        net.nodes[5].kill()
        net.until(lambda: net.states()[5] is DOWN)
        assert net.leader.propose(RemoveMember(5)).ok
        net.until(lambda: len(net.voters()) == 3)
    finally:
        globalLogPublisher.removeObserver(observe)
    own = [each for each in said if each["log_namespace"] == "hypercache.cluster.steward"]
    assert own
    assert [each for each in own if each["log_level"] is not LogLevel.info] == []


def test_a_dead_node_is_removed_and_leaves_nothing_behind() -> None:
    net = three()
    net.nodes[3].kill()
    net.until(lambda: net.states()[3] is DOWN)
    assert net.leader.propose(RemoveMember(3)).ok
    net.until(lambda: net.voters() == (1, 2))
    state = net.leader.state
    assert (list(state.members), state.removed, state.learners) == ([1, 2], (3,), ())
    assert net.leader.steward.doubts() == {}
    net.run(3)
    assert net.leader.steward.phi(3) == 0.0


@pytest.mark.parametrize("leaves", [1, 3])
def test_who_wants_to_leave_gives_up_its_vote_and_is_let_go(leaves: int) -> None:
    net = cluster(4)
    assert net.leader.propose(SetMemberState(leaves, MemberState.LEAVING)).ok
    net.until(lambda: leaves not in net.leader.state.members and leaves not in net.voters())
    assert net.leader.state.removed == (leaves,)
    assert len(net.voters()) == 3
    assert all(not node.failures for node in net.nodes.values())


def test_nobody_is_let_go_while_a_plan_is_under_way() -> None:
    net = three()
    began = net.leader.propose(BeginPlan("drain", b""))
    assert net.leader.propose(SetMemberState(3, MemberState.LEAVING)).ok
    net.until(lambda: net.voters() == (1, 2))
    net.run(3)
    assert 3 in net.states()
    assert net.leader.propose(EndPlan(began.index)).ok
    net.until(lambda: 3 not in net.states())


def test_a_node_that_lost_its_disk_leaves_the_group_and_joins_anew() -> None:
    net = three()
    node = net.nodes[3]
    node.kill()
    node.wipe()
    node.boot = 0
    back = AddMember(3, f"{node.host}:7379", boot=1, fresh=True)
    assert net.leader.propose(back).code is Code.REJOIN
    assert net.states()[3] is MemberState.REJOINING
    net.until(lambda: net.voters() == (1, 2))
    net.join(3)
    net.until(lambda: net.voters() == (1, 2, 3) and net.states()[3] is UP)
    assert net.leader.state.members[3].boot == 1
    # What it proposes counts, though its sequences begin anew.
    assert node.propose(UpdateMember(3, name="back")).ok


def test_settings_take_voters_back() -> None:
    net = three()
    for node in net.nodes.values():
        node.steward._policy = type(net.policy)(voters=1)
    net.until(lambda: len(net.voters()) == 1)
    assert len(net.learners()) == 2


# The steward alone


class LoneGroup:
    """A leader of one voter, whose proposals a test answers: a driver would do that by itself, and a test could not see each."""

    def __init__(self) -> None:
        self.raft = Raft(1, Options(), random.Random(1), snapshot=SnapshotMeta(configuration=Configuration((1,))))
        self.raft.campaign()
        while self.raft.state is not State.LEADER:
            self.raft.advance(self.raft.ready())
        self.proposed: list[Deferred[bytes]] = []
        self.commands: list[Command] = []
        self.fails = True

    def settle(self) -> None:
        """Apply the entry with which the leader took office."""
        while self.raft.log.applied < self.raft.log.last_index:
            self.raft.advance(self.raft.ready())

    def propose(self, data: bytes) -> Deferred[bytes]:
        self.proposed.append(Deferred())
        self.commands.append(decode_command(split_entry(data)[3]))
        if self.fails:
            self.proposed[-1].errback(OutcomeUnknownError("lost"))
        return self.proposed[-1]

    def change_members(self, voters: Any, learners: Any) -> None:
        raise AssertionError("there is nobody else")


def lone_steward(group: LoneGroup, clock: Clock, *, accounts: tuple[AddMember, ...] = (), **others: Member) -> Steward:
    members = {1: Member(1, "a:1", boot=1), **{member.node_id: member for member in others.values()}}
    state = ControlState(cluster_id=CLUSTER, members=members, voters=(1,))
    return Steward(
        group,
        lambda: state,
        lambda: FoundCluster(CLUSTER, AddMember(1, "a:1", boot=1)),
        clock=clock,
        heard_at=lambda node_id: None,
        tell=lambda node_id, message: None,
        accounts=lambda: accounts,
        interval=BEAT_SECONDS,
    )


def test_a_leader_that_has_not_applied_what_was_agreed_on_before_it_led_decides_nothing() -> None:
    clock, group = Clock(), LoneGroup()
    steward = lone_steward(group, clock)
    steward.start()
    clock.advance(10)
    assert group.commands == []
    group.settle()
    clock.advance(BEAT_SECONDS / 10)
    assert group.commands == [SetMemberState(1, UP, "heard", MemberState.JOINING)]
    steward.stop()


@pytest.mark.parametrize(("boot", "address", "told"), [(2, "b:1", False), (3, "b:1", True), (2, "c:1", True), (1, "c:1", False)])
def test_what_members_say_of_themselves_is_noted_where_it_is_news(boot: int, address: str, told: bool) -> None:
    clock, group = Clock(), LoneGroup()
    group.settle()
    account = AddMember(2, address, boot=boot)
    stranger = AddMember(3, "d:1", boot=1)
    steward = lone_steward(group, clock, accounts=(stranger, account), two=Member(2, "b:1", boot=2, state=UP))
    steward.start()
    assert (group.commands == [account]) is told
    steward.stop()


def test_one_thing_is_proposed_at_a_time() -> None:
    clock, group = Clock(), LoneGroup()
    group.settle()
    group.fails = False
    steward = lone_steward(group, clock)
    steward.start()
    for _ in range(10):
        clock.advance(BEAT_SECONDS)
        steward.poke()
    assert len(group.proposed) == 1
    group.proposed[0].callback(b"what no machine answers")
    clock.advance(BEAT_SECONDS)
    assert len(group.proposed) == 2
    steward.stop()


def test_what_failed_is_tried_again_at_the_next_look_and_not_before() -> None:
    clock, group = Clock(), LoneGroup()
    group.settle()
    steward = lone_steward(group, clock)
    steward.start()
    assert len(group.proposed) == 1
    clock.advance(BEAT_SECONDS - 0.01)
    assert len(group.proposed) == 1
    clock.advance(0.01)
    assert len(group.proposed) == 2
    steward.poke()
    steward.poke()
    clock.advance(0)
    assert len(group.proposed) == 3
    steward.poke()
    steward.stop()
    clock.advance(10)
    assert len(group.proposed) == 3
    steward.poke()
    assert not clock.getDelayedCalls()


def test_only_members_are_listened_to() -> None:
    heard: list[tuple[int, Suspicion]] = []
    handler: Any = SuspicionHandler(lambda sender, message: heard.append((sender, message)))
    message = Suspicion((SuspectedNode(3),))

    class Context:
        """Who sent it, as the handler sees that; a link is not needed for it."""

        def __init__(self, member: bool) -> None:
            self.member = member
            self.node_id = 2

    assert handler.handle(Context(member=False), message) is None
    assert heard == []
    assert handler.handle(Context(member=True), message) is None
    assert heard == [(2, message)]
    assert (handler.message_type, handler.requires_auth) == (Suspicion.TYPE, True)
