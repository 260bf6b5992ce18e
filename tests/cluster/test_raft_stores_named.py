"""HYPERCACHE.STORE and SELECT: how stores come to be, are found, and go, on every member."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from hypercache.cluster.machine import ClusterMachine
from hypercache.cluster.named_stores import ClusterStores
from hypercache.errors import NotLeaderError, OutcomeUnknownError
from hypercache.limits import STORE_NAME_MAX_BYTES
from hypercache.resp.replies import OK
from hypercache.store import Keyspace, built_in_policies
from tests.cluster.raft_log import ListLog, RaftNode, make_machine
from tests.resp.exchange import EngineClient, request

STORE = "hypercache.store"


class Follower:
    """Another member's machine and keyspace."""

    def __init__(self, node: RaftNode) -> None:
        self.client = EngineClient()
        self.machine: ClusterMachine = make_machine()
        self.keyspace: Keyspace = self.client.keyspace
        self.stores = ClusterStores(ListLog(), self.machine, self.keyspace, built_in_policies(), Clock())
        self.machine.on_control = self.stores.changed
        node.log.machines.append(self.machine)


@pytest.mark.parametrize("level", ["raft", "async"])
def test_a_store_is_made_on_every_member_with_what_was_asked_for(level: str) -> None:
    node = RaftNode()
    other = Follower(node)
    options = ("level", level, "maxmemory", 1 << 20, "EVICTION", "allkeys-lru", "TTL", 5000)
    assert node.run(STORE, "create", "things", *options) == OK
    for keyspace in (node.client.keyspace, other.keyspace):
        store = keyspace.named("things")
        assert store is not None
        assert (store.maxmemory, store.policy.name, store.ttl_ms) == (1 << 20, "lru", 5000)
        assert (store.log is not None) == (level == "raft")
    assert node.run(STORE, "list") == b"*1\r\n$6\r\nthings\r\n"
    assert node.run("select", "things") == OK
    assert node.run("set", "a", 1) == OK
    assert node.run("pttl", "a") == b":5000\r\n"
    info = node.run(STORE, "info", "things")
    for word in (b"things", level.encode(), b":1048576", b"lru", b":5000", b"keys\r\n:1\r\n", b"expires\r\n:1\r\n"):
        assert word in info
    assert b"store_things:keys=1,expires=1,avg_ttl=5000" in node.run("info", "keyspace")


@pytest.mark.parametrize("level", ["raft", "async"])
def test_a_store_that_is_dropped_is_gone_for_those_too_who_have_it_selected(level: str) -> None:
    node = RaftNode()
    other = Follower(node)
    node.run(STORE, "create", "things", "level", level)
    node.run("select", "things")
    node.run("set", "a", 1)
    assert node.run(STORE, "drop", "things") == OK
    refused = b"-ERR no such store 'things': it was dropped\r\n"
    assert node.raw(request("set", "a", 1) + request("get", "a") + request("ping")) == 2 * refused + b"+PONG\r\n"
    assert node.run("select", "things") == b"-ERR no such store 'things'\r\n"
    assert node.run(STORE, "list") == b"*0\r\n"
    assert other.keyspace.named("things") is None
    assert node.run(STORE, "create", "things", "level", level) == OK
    assert node.run("get", "a") == (refused if level == "raft" else b"$-1\r\n")
    assert node.run("select", "things") == OK
    assert node.run("get", "a") == b"$-1\r\n"
    assert node.run("dbsize") == b":0\r\n"


def test_records_of_an_earlier_async_store_of_the_name_never_come_back() -> None:
    node = RaftNode()
    other = Follower(node)
    node.run(STORE, "create", "things")
    node.run("select", "things")
    node.run("set", "a", 1)
    store = node.store("things")
    record = store.record(b"a")
    assert record is not None
    node.run(STORE, "drop", "things")
    node.client.now_ms += 10
    node.run(STORE, "create", "things")
    for keyspace in (node.client.keyspace, other.keyspace):
        made = keyspace.named("things")
        assert made is not None
        assert made.floor == node.client.now_ms << 80
        assert not made.apply_put(b"a", record.value, record.deadline, record.stamp)
        made.put(b"a", b"2")
        assert made.get(b"a") == b"2"


def test_what_members_send_of_a_dropped_async_store_takes_no_memory() -> None:
    node = RaftNode()
    node.run(STORE, "create", "things")
    store = node.store("things")
    node.run(STORE, "drop", "things")
    assert store.apply_put(b"late", b"x", 0, store.next_stamp())
    node.client.keyspace.tend(lambda: False)
    assert len(store) == 0


def test_what_members_send_of_an_async_store_never_enters_one_of_level_raft() -> None:
    node = RaftNode()
    node.run(STORE, "create", "things", "level", "raft")
    assert node.client.keyspace.by_name("things", create=True) is None
    assert list(node.client.keyspace.stores) == ["default"]


def test_flushall_leaves_stores_of_level_raft_alone_and_empties_the_others() -> None:
    node = RaftNode()
    for name, level in (("kept", "raft"), ("things", "async")):
        node.run(STORE, "create", name, "level", level)
        node.run("select", name)
        node.run("set", "a", 1)
    assert node.run("flushall") == OK
    assert node.run("dbsize") == b":0\r\n"
    node.run("select", "kept")
    assert node.run("dbsize") == b":1\r\n"
    node.run("select", 0)
    node.run("flushall")
    node.run("select", "kept")
    assert node.run("dbsize") == b":1\r\n"
    assert node.run("flushall") == OK
    assert node.run("dbsize") == b":0\r\n"


def test_a_setting_of_the_nodes_policy_leaves_that_of_a_store_alone() -> None:
    node = RaftNode()
    node.run(STORE, "create", "things", "eviction", "lfu")
    keyspace = node.client.keyspace
    keyspace.policy = built_in_policies()["random"]
    store = keyspace.named("things")
    assert store is not None
    assert store.policy.name == "lfu"
    assert keyspace.stores["default"].policy.name == "random"


def test_a_store_that_another_node_just_made_is_found_by_asking_the_log() -> None:
    node = RaftNode()
    node.client.raw(request("select", "things") + request("ping"))
    assert node.client.engine.waiting
    node.create("things")
    node.turn()
    assert node.client.raw(b"") == OK + b"+PONG\r\n"
    assert node.client.session.store is node.store("things")


def test_a_number_selects_as_ever_and_a_name_may_be_that_of_a_numbered_store() -> None:
    node = RaftNode()
    assert node.run("select", 3) == OK
    assert node.client.session.store.name == "db3"
    assert node.run("select", "default") == OK
    assert node.client.session.store.name == "default"
    assert node.run("select", 16) == b"-ERR DB index is out of range\r\n"
    assert node.run("select", "x" * 1000) == b"-ERR no such store\r\n"


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("create", "s", "level"), b"-ERR syntax error"),
        (("create", "s", "color", "red"), b"-ERR syntax error"),
        (("create", "s", "ttl", 1, "ttl", 2), b"-ERR syntax error"),
        (("create", "s", "ttl", "x"), b"-ERR value is not an integer"),
        (("create", "s", "ttl", -1), b"-ERR value is out of range"),
        (("create", "s", "level", "best"), b"-ERR a store's level is one of"),
        (("create", "s", "level", "quorum"), b"-ERR level quorum is not served yet"),
        (("create", "s", "level", "raft", "replicas", 2), b"-ERR a store of level raft is held by every member"),
        (("create", "s", "eviction", "best"), b"-ERR unknown eviction policy 'best'"),
        (("create", "db3"), b"-ERR the name 'db3' belongs to a store"),
        (("create", "3"), b"-ERR a store's name has"),
        (("create", "x" * (STORE_NAME_MAX_BYTES + 1)), b"-ERR a store's name has at most"),
        (("create", "there"), b"-ERR store 'there' exists already"),
        (("drop", "s"), b"-ERR no such store"),
        (("drop", "default"), b"-ERR store 'default' is always there"),
        (("info", "s"), b"-ERR no such store 's'"),
        (("info",), b"-ERR wrong number of arguments"),
        (("rename", "s", "t"), b"-ERR unknown subcommand 'rename'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(arguments: tuple[str | int, ...], refusal: bytes) -> None:
    node = RaftNode()
    node.create("there")
    version = node.machine.control.state.version
    assert node.run(STORE, *arguments).startswith(refusal)
    assert node.machine.control.state.version == version


def test_a_failure_says_whether_the_change_may_have_happened() -> None:
    node = RaftNode()
    for error, answer in ((NotLeaderError(0), b"-CLUSTERDOWN "), (OutcomeUnknownError("late"), b"-UNKNOWN the change ")):
        for args in ((STORE, "create", "s"), (STORE, "drop", "s")):
            node.client.raw(request(*args))
            node.clock.advance(0)
            node.log.fail(error)
            assert node.client.raw(b"").startswith(answer)
    node.client.raw(request("select", "s"))
    node.clock.advance(0)
    node.log.fail(NotLeaderError(0))
    assert node.client.raw(b"").startswith(b"-CLUSTERDOWN ")


def test_without_a_group_stores_cannot_be_defined_and_select_takes_numbers_alone() -> None:
    client = EngineClient()
    assert client.run(STORE, "list").startswith(b"-ERR this node takes no part in the Raft group")
    assert client.run("select", "things") == b"-ERR value is not an integer or out of range\r\n"
    assert client.run(STORE, "help").startswith(b"*")
