"""Stores of level raft over three drivers with the real core: clients of different nodes see one store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hypercache.cluster.gateway import Gateway
from hypercache.cluster.named_stores import ClusterStores
from hypercache.resp.replies import OK
from hypercache.store import built_in_policies
from tests.cluster.raft_log import make_machine
from tests.consensus import drivers
from tests.resp.exchange import EngineClient, request

if TYPE_CHECKING:
    from hypercache.cluster.machine import ClusterMachine


class Node:
    """A client of one member, with what is between it and the log."""

    def __init__(self, group: drivers.Group, node_id: int) -> None:
        self.group = group
        self.member = group[node_id]
        self.client = EngineClient()
        self.open()

    def open(self) -> None:
        machine: ClusterMachine = self.member.machine  # type: ignore[assignment]
        self.machine = machine
        Gateway(self.member.driver, machine.stores, self.group.clock)
        stores = ClusterStores(self.member.driver, machine, self.client.keyspace, built_in_policies(), self.group.clock)
        machine.on_control = stores.changed
        self.client.server.stores = stores

    def send(self, *args: bytes | str | int) -> bytes:
        return self.client.raw(request(*args))

    def replies(self) -> bytes:
        """Return the replies that are to come."""
        found: list[bytes] = []
        while self.client.engine.stalled:
            self.group.until(lambda: not self.client.engine.waiting)
            found.append(self.client.raw(b""))
        return b"".join(found)

    def run(self, *args: bytes | str | int) -> bytes:
        return self.send(*args) + self.replies()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> dict[int, Node]:
    monkeypatch.setattr(drivers, "Notes", make_machine)
    group = drivers.Group(3, snapshot_after=4000)
    group.elect(1)
    nodes = {node_id: Node(group, node_id) for node_id in (1, 2, 3)}
    assert nodes[2].run("hypercache.store", "create", "s", "level", "raft") == OK
    for node in nodes.values():
        assert node.run("select", "s") == OK
    return nodes


def test_a_write_through_one_node_is_seen_by_a_read_through_another_that_begins_after_it(nodes: dict[int, Node]) -> None:
    for number in range(30):
        writer, reader = nodes[1 + number % 3], nodes[1 + (number + 1) % 3]
        assert writer.run("set", "a", number) == OK
        assert reader.run("get", "a") == b"$%d\r\n%d\r\n" % (len(str(number)), number)


def test_counting_through_all_nodes_at_once_loses_and_doubles_nothing(nodes: dict[int, Node]) -> None:
    replies: list[bytes] = []
    for _ in range(40):
        for node in nodes.values():
            node.send("incr", "n")
        for node in nodes.values():
            replies += node.replies().split()
    assert sorted(replies) == sorted(b":%d" % number for number in range(1, 121))
    group = nodes[1].group
    group.until(lambda: len({node.machine.stores.digest() for node in nodes.values()}) == 1)


def test_a_node_that_is_cut_off_serves_neither_reads_nor_writes_and_the_others_go_on(nodes: dict[int, Node]) -> None:
    group = nodes[1].group
    assert nodes[1].run("set", "a", "old") == OK
    group.cut.add(1)
    nodes[1].send("get", "a")
    group.until(lambda: nodes[2].member.driver.leads or nodes[3].member.driver.leads)
    assert nodes[2].run("set", "a", "new") == OK
    assert nodes[1].replies() == b"-CLUSTERDOWN no leader of the Raft group is known; try again\r\n"
    nodes[1].send("set", "a", "lost?")
    group.run(6)
    group.cut.clear()
    assert nodes[1].replies().startswith(b"-CLUSTERDOWN")
    assert nodes[1].run("get", "a") == b"$3\r\nnew\r\n"


def test_a_leader_that_is_cut_off_with_a_write_says_that_nobody_knows(nodes: dict[int, Node]) -> None:
    group = nodes[1].group
    group.cut.add(1)
    nodes[1].send("set", "a", 1)
    assert nodes[1].replies() == b"-UNKNOWN the write found no majority in time; it may or may not have happened\r\n"


def test_a_node_comes_back_from_its_snapshot_and_log_with_the_same_records(nodes: dict[int, Node]) -> None:
    group = nodes[1].group
    for number in range(60):
        assert nodes[1].run("set", f"k{number}", "v" * 200, "px", 10**6 + number) == OK
    group.until(lambda: nodes[3].member.disk.snapshot.index > 0)
    nodes[3].member.kill()
    assert nodes[1].run("set", "while away", 1) == OK
    nodes[3].member.start()
    again = Node(group, 3)
    assert again.run("select", "s") == OK
    assert again.run("get", "while away") == b"$1\r\n1\r\n"
    assert again.run("dbsize") == b":61\r\n"
    assert again.machine.stores.digest() == nodes[1].machine.stores.digest()
    assert not nodes[3].member.failures
