"""Who is a member is agreed on: founding, joining, leaving, dying, coming back (consistency.md, rules 12 to 14)."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from hypercache.control.commands import CreateStore, proposal
from hypercache.control.state import MemberState
from hypercache.errors import ConfigurationError
from hypercache.wire import NodeType, Status
from hypercache.wire.messages import HashRingUpdate, NodeJoinRequest, NodeJoinResponse
from tests.cluster.network import connect_raw

if TYPE_CHECKING:
    from tests.cluster.network import Network, Node


def cluster(net: Network, size: int, **options: Any) -> list[Node]:
    """Return nodes that are settled."""
    first = net.node(1, agrees=True, **options)
    net.until(lambda: first.leads)
    nodes = [first, *(net.node(number, agrees=True, join=(first,), **options) for number in range(2, size + 1))]
    settle(net, nodes)
    return nodes


def settle(net: Network, nodes: list[Node]) -> None:
    """Wait until all nodes are up and of the group, an odd number of them or two vote, and all know that."""
    ids = sorted(node.identity.node_id for node in nodes)

    def settled(node: Node) -> bool:
        state = node.agreed
        up = [each.node_id for each in state.members.values() if each.state is MemberState.UP]
        of_group = sorted(state.voters + state.learners)
        voting = len(state.voters) in (len(ids), len(ids) - 1) and (len(state.voters) % 2 or len(ids) == 2)
        return bool(sorted(up) == ids == of_group and voting and node.linked() == {*ids} - {node.identity.node_id})

    net.until(lambda: all(settled(node) for node in nodes), 30)


def leader_of(net: Network, nodes: list[Node]) -> Node:
    net.until(lambda: any(node.leads for node in nodes))
    return max((node for node in nodes if node.leads), key=lambda node: node.control.consensus.raft.term)


def outcome_of(deferred: Any) -> list[Any]:
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found


def test_a_node_alone_founds_a_cluster_and_leads_it_at_once(net: Network) -> None:
    node = net.node(1, agrees=True)
    net.until(lambda: node.agreed.members, 0.2)
    assert node.agreed.cluster_id == node.identity.cluster_id
    assert node.agreed.voters == (node.identity.node_id,)


def test_nobody_joins_a_cluster_before_its_founder(net: Network) -> None:
    net.run(1)
    nodes = [net.node(1, agrees=True)]
    nodes += [net.node(number, agrees=True, join=(nodes[0],)) for number in (2, 3, 4, 5)]
    settle(net, nodes)
    members = nodes[0].agreed.members
    assert min(members.values(), key=lambda member: member.since_index).node_id == nodes[0].identity.node_id


def test_nodes_join_as_learners_and_come_to_vote(net: Network) -> None:
    first = net.node(1, agrees=True)
    net.until(lambda: first.leads)
    second = net.node(2, agrees=True, join=(first,))
    states: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def seen() -> bool:
        states.append((first.agreed.voters, first.agreed.learners))
        return second.identity.node_id in first.agreed.voters

    net.until(seen)
    own, other = first.identity.node_id, second.identity.node_id
    assert ((own,), (other,)) in states
    assert second.identity.cluster_id == first.identity.cluster_id
    settle(net, [first, second])
    net.run(0.5)
    assert second.agreed == first.agreed


def test_all_have_one_ring_version_and_each_change_of_it_goes_to_everybody(net: Network) -> None:
    nodes = cluster(net, 3)
    base = connect_raw(net, nodes[1])
    base.send(NodeJoinRequest(77, 7379, NodeType.CACHE, 0, "10.9.9.9"))
    net.until(lambda: base.of(NodeJoinResponse))
    net.until(lambda: all(77 in node.agreed.members for node in nodes))
    net.run(0.2)
    version = nodes[0].agreed.ring_version
    assert [node.membership.version for node in nodes] == [version] * 3
    assert base.of(HashRingUpdate)[-1].version == version
    fourth = net.node(4, agrees=True, join=(nodes[2],))
    net.until(lambda: base.of(HashRingUpdate)[-1].version > version)
    assert fourth.identity.node_id in {node.node_id for node in base.of(HashRingUpdate)[-1].nodes}
    assert 77 not in nodes[0].agreed.voters + nodes[0].agreed.learners, "a base peer speaks no Raft"


def test_a_node_joins_by_any_member_whoever_leads(net: Network) -> None:
    nodes = cluster(net, 3)
    follower = next(node for node in nodes if not node.leads)
    fourth = net.node(4, agrees=True, join=(follower,))
    settle(net, [*nodes, fourth])


def test_without_a_majority_nobody_is_let_in_and_the_node_goes_on_asking(net: Network) -> None:
    nodes = cluster(net, 3)
    for node in nodes[1:]:
        node.kill()
    net.run(3)
    late = net.node(4, agrees=True, join=(nodes[0],))
    net.run(12)
    assert late.identity.cluster_id == 0
    assert late.identity.node_id not in nodes[0].agreed.members
    back = [net.node(number, agrees=True, join=(nodes[0],)) for number in (2, 3)]
    settle(net, [nodes[0], *back, late])


def test_a_node_that_was_told_to_join_never_founds(net: Network) -> None:
    node = net.node(1, agrees=True, join=("10.0.0.9:7379",))
    net.run(30)
    assert (node.identity.cluster_id, node.control.consensus) == (0, None)


def test_a_node_founds_once_and_finds_its_cluster_on_its_disk(net: Network) -> None:
    node = net.node(1, agrees=True)
    net.until(lambda: node.leads)
    assert node.propose(CreateStore("bank", "raft")).ok
    cluster_id = node.identity.cluster_id
    node.kill()
    again = net.node(1, agrees=True)
    net.until(lambda: again.leads and again.agreed.stores, 5)
    assert again.identity.cluster_id == again.agreed.cluster_id == cluster_id
    assert "bank" in again.machine.stores.stores


def test_a_founder_that_ended_before_its_log_was_there_founds_the_same_cluster(net: Network) -> None:
    node = net.node(1, agrees=True)
    cluster_id = node.identity.cluster_id
    node.kill()
    shutil.rmtree(net.directory / "node1" / "raft")
    again = net.node(1, agrees=True)
    net.until(lambda: again.leads)
    assert again.agreed.cluster_id == cluster_id or again.identity.cluster_id == cluster_id


def test_a_member_whose_log_is_gone_is_not_started_to_found_another_cluster(net: Network) -> None:
    nodes = cluster(net, 2)
    nodes[0].kill()
    shutil.rmtree(net.directory / "node1" / "raft")
    with pytest.raises(ConfigurationError, match="--join"):
        net.node(1, agrees=True)


def test_a_member_whose_log_is_gone_leaves_the_group_before_it_is_let_in_anew(net: Network) -> None:
    nodes = cluster(net, 3)
    lost = next(node for node in nodes if not node.leads)
    rest = [node for node in nodes if node is not lost]
    lost.kill()
    shutil.rmtree(net.directory / f"node{lost.number}" / "raft")
    back = net.node(lost.number, agrees=True, join=(rest[0],))
    voted: list[bool] = []
    lost_id = back.identity.node_id

    def settled() -> bool:
        voted.append(lost_id in leader_of(net, rest).agreed.voters)
        return len(voted) > 10 and False in voted and voted[-1]

    net.until(settled, 60)
    settle(net, [*rest, back])
    assert back.agreed.members[lost_id].boot == back.identity.boot


def test_two_clusters_never_become_one(net: Network) -> None:
    one, other = net.node(1, agrees=True), net.node(2, agrees=True)
    net.until(lambda: one.leads and other.leads)
    other.kill()
    astray = net.node(2, agrees=True, join=(one,))
    net.run(5)
    assert astray.identity.cluster_id != one.identity.cluster_id
    assert list(one.agreed.members) == [one.identity.node_id]
    assert list(astray.agreed.members) == [astray.identity.node_id]


def test_a_cluster_starts_again_with_all_addresses_changed(net: Network) -> None:
    nodes = cluster(net, 3)
    ids = {node.identity.node_id for node in nodes}
    for node in nodes:
        node.kill()
    first = net.node(11, agrees=True, directory="node1")
    others = [net.node(number + 10, agrees=True, directory=f"node{number}", join=(first,)) for number in (2, 3)]
    again = [first, *others]
    settle(net, again)
    assert {node.identity.node_id for node in again} == ids
    addresses = {node.identity.node_id: node.address for node in again}
    net.until(lambda: all({m.node_id: m.address for m in node.agreed.members.values()} == addresses for node in again), 30)


def test_a_dead_member_is_down_and_up_again_when_it_is_back(net: Network) -> None:
    nodes = cluster(net, 3)
    dead = next(node for node in nodes if not node.leads)
    rest = [node for node in nodes if node is not dead]
    dead_id = dead.identity.node_id
    dead.kill()
    net.until(lambda: all(node.agreed.members[dead_id].state is MemberState.DOWN for node in rest), 15)
    back = net.node(dead.number, agrees=True)
    net.until(lambda: all(node.agreed.members[dead_id].state is MemberState.UP for node in [*rest, back]), 15)


def test_a_dead_leader_is_replaced_and_down(net: Network) -> None:
    nodes = cluster(net, 3)
    dead = leader_of(net, nodes)
    rest = [node for node in nodes if node is not dead]
    dead.kill()
    net.until(lambda: any(node.leads for node in rest), 3.5)
    net.until(lambda: all(node.agreed.members[dead.identity.node_id].state is MemberState.DOWN for node in rest), 15)


def test_a_leader_that_stops_hands_over_first(net: Network) -> None:
    nodes = cluster(net, 3)
    leader = leader_of(net, nodes)
    term = leader.control.consensus.raft.term
    done = outcome_of(leader.control.resign())
    net.until(lambda: done, 0.9)
    assert done == [None]
    net.until(lambda: any(node.leads for node in nodes if node is not leader), 0.2)
    assert leader_of(net, nodes).control.consensus.raft.term == term + 1


def test_a_node_that_stops_says_goodbye_without_delay(net: Network) -> None:
    nodes = cluster(net, 3)
    stopping = next(node for node in nodes if not node.leads)
    net.run(1)
    # One that came just before.
    leader_of(net, nodes).control.propose(proposal(CreateStore("bank", "raft")))
    net.run(0.01)
    stopping.control.stop()
    gone = outcome_of(stopping.membership.stop())
    net.until(lambda: gone, 0.5)


def test_a_leader_that_dies_is_replaced_sooner_than_one_that_keeps_silent(net: Network) -> None:
    nodes = cluster(net, 3)
    leader = leader_of(net, nodes)
    rest = [node for node in nodes if node is not leader]
    leader.kill()
    net.until(lambda: any(node.leads for node in rest), 0.8)


def test_a_dead_member_is_removed_cleanly_and_comes_back_only_as_a_new_one(net: Network) -> None:
    nodes = cluster(net, 3)
    dead = next(node for node in nodes if not node.leads)
    rest = [node for node in nodes if node is not dead]
    dead_id = dead.identity.node_id
    dead.kill()
    answers = outcome_of(rest[0].control.admission.leave(dead_id))
    net.until(lambda: answers, 20)
    assert answers[0].status == Status.SUCCESS
    settle(net, rest)
    zombie = net.node(dead.number, agrees=True)
    net.until(lambda: zombie.left)
    assert dead_id not in rest[0].agreed.members
    assert not any(dead_id in node.linked() for node in rest)
    zombie.kill()
    shutil.rmtree(net.directory / f"node{dead.number}")
    fresh = net.node(dead.number, agrees=True, join=(rest[0],), node_id=dead_id)
    settle(net, [*rest, fresh])


def test_a_member_that_leaves_is_let_go_and_told(net: Network) -> None:
    nodes = cluster(net, 3)
    leader = leader_of(net, nodes)
    rest = [node for node in nodes if node is not leader]
    answers = outcome_of(rest[0].control.admission.leave(leader.identity.node_id))
    net.until(lambda: answers, 30)
    assert answers[0].status == Status.SUCCESS
    settle(net, rest)
    net.until(lambda: leader.left, 30)


def test_the_last_member_does_not_leave(net: Network) -> None:
    node = net.node(1, agrees=True)
    net.until(lambda: node.agreed.members)
    answers = outcome_of(node.control.admission.leave(node.identity.node_id))
    net.until(lambda: answers)
    assert answers[0].status == Status.ERROR
    assert node.agreed.members


def test_a_full_cluster_takes_nobody(net: Network) -> None:
    nodes = cluster(net, 2, max_nodes=2)
    late = net.node(3, agrees=True, join=(nodes[0],))
    net.run(5)
    assert late.identity.cluster_id == 0
    assert len(nodes[0].agreed.members) == 2


def test_at_most_as_many_vote_as_the_settings_say_and_a_learner_takes_a_dead_voters_place(net: Network) -> None:
    first = net.node(1, agrees=True, overrides=("raft.voters=3", "raft.out_after=5"))
    net.until(lambda: first.leads)
    options = {"agrees": True, "join": (first,), "overrides": ("raft.voters=3", "raft.out_after=5")}
    nodes = [first, *(net.node(number, **options) for number in range(2, 6))]
    net.until(lambda: len(first.agreed.voters) == 3 and len(first.agreed.learners) == 2, 30)
    net.run(3)
    assert len(first.agreed.voters) == 3
    dead = next(node for node in nodes if node.identity.node_id in first.agreed.voters and not node.leads)
    dead.kill()
    rest = [node for node in nodes if node is not dead]
    watcher = rest[0]
    net.until(lambda: dead.identity.node_id not in watcher.agreed.voters, 40)
    net.until(lambda: len(watcher.agreed.voters) == 3, 10)


def test_every_member_has_the_same_raft_stores(net: Network) -> None:
    nodes = cluster(net, 3)
    assert nodes[1].propose(CreateStore("bank", "raft")).ok
    net.until(lambda: all("bank" in node.machine.stores.stores for node in nodes))
    late = net.node(4, agrees=True, join=(nodes[0],))
    settle(net, [*nodes, late])
    assert "bank" in late.machine.stores.stores
    assert not any(node.failures for node in [*nodes, late])


def test_an_election_timeout_that_a_late_heartbeat_exceeds_is_refused(net: Network) -> None:
    with pytest.raises(ConfigurationError, match=r"raft\.election"):
        net.node(1, agrees=True, overrides=("raft.heartbeat=0.5", "raft.election=1"))
