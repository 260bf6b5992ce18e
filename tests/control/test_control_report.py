"""What an operator is told of the cluster."""

from __future__ import annotations

import json

import msgspec

from hypercache.control.commands import BeginPlan, CreateStore, SetMemberState
from hypercache.control.report import GroupStatus, status_report
from hypercache.control.state import ControlState, MemberState, NodeKind
from tests.control.plane import CLUSTER, founded, node


def test_a_leader_tells_all_it_knows() -> None:
    plane = founded(3)
    plane.apply(node(4, node_type=NodeKind.PROXY))
    plane.apply(SetMemberState(3, MemberState.DOWN, "not heard by 1, 2"))
    plane.apply(CreateStore("bank", "raft", ttl_ms=5))
    plane.apply(BeginPlan("a node joined", b""))
    status = GroupStatus(
        1,
        "n1",
        role="leader",
        leader=1,
        term=4,
        commit=90,
        applied=89,
        voters=(1, 2),
        learners=(3,),
        match={2: 88, 3: 5},
        suspects={3: {2, 1}},
        phi={2: 0.123, 3: float("inf")},
    )
    report = status_report(plane.state, status)
    assert report["cluster_id"] == CLUSTER
    assert report["node"] == {
        "id": 1,
        "name": "n1",
        "role": "leader",
        "term": 4,
        "commit": 90,
        "applied": 89,
        "disk_full": False,
    }
    assert (report["leader"], report["ring_version"], report["version"]) == (1, 4, 7)
    assert (report["voters"], report["outgoing"], report["learners"]) == ([1, 2], [], [3])
    told = [(each["id"], each["state"], each["role"], each["match"], each["phi"]) for each in report["members"]]
    assert told == [
        (1, "joining", "leader", 90, 0.0),
        (2, "joining", "voter", 88, 0.12),
        (3, "down", "learner", 5, 1000.0),
        (4, "joining", "none", None, 0.0),
    ]
    assert report["members"][2]["suspected_by"] == [1, 2]
    assert report["members"][2]["reason"] == "not heard by 1, 2"
    assert report["members"][3]["type"] == "proxy"
    assert report["stores"] == [
        {"name": "bank", "level": "raft", "replicas": 0, "maxmemory": 0, "eviction": "none", "ttl_ms": 5},
    ]
    assert report["plan"] == {"index": plane.index, "reason": "a node joined"}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_follower_tells_no_match_and_the_outgoing_voters_vote_still() -> None:
    state = founded(2).state
    report = status_report(state, GroupStatus(2, leader=1, voters=(1,), outgoing=(1, 2)))
    assert [(each["role"], each["match"]) for each in report["members"]] == [("leader", None), ("voter", None)]


def test_a_node_without_a_cluster_has_a_report_too() -> None:
    report = status_report(ControlState(), GroupStatus(5))
    assert (report["cluster_id"], report["leader"], report["members"], report["plan"]) == (0, 0, [], None)
    assert msgspec.json.decode(msgspec.json.encode(report)) == report
