"""From clients to the log and back: what shares a proposal, what a failure says, what the leader proposes by itself."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from hypercache.cluster.batches import batch_entry, decode_batch, encode_unit
from hypercache.cluster.gateway import BUSY, NO_LEADER, UNKNOWN
from hypercache.cluster.raft_upkeep import RaftUpkeep
from hypercache.control.entries import split_entry
from hypercache.errors import BusyError, NotLeaderError, OutcomeUnknownError, StorageError
from hypercache.limits import EXPIRY_TICK_SECONDS, RAFT_APPEND_MAX_BYTES, RAFT_COMMAND_MAX_BYTES
from hypercache.resp import Engine, RequestParser, Session
from hypercache.resp.replies import OK
from hypercache.resp.table import command
from tests.cluster.raft_log import RaftNode
from tests.resp.data_commands import COMMANDS, STATES
from tests.resp.exchange import NOW_MS, request
from tests.resp.test_data_against_redis import Pair


def node(now_ms: int = NOW_MS) -> RaftNode:
    made = RaftNode(others=1, now_ms=now_ms)
    made.create()
    assert made.run("select", "accounts") == OK
    return made


class Another:
    """Another connection to the same node."""

    def __init__(self, node: RaftNode, store: str = "accounts") -> None:
        client = node.client
        session = Session(2, client.keyspace, client.server, client.now_ms)
        session.store = node.store(store)
        self.engine = Engine(session, client.server.table, RequestParser())
        self.node = node

    def raw(self, data: bytes) -> bytes:
        return self.engine.feed(data, self.node.client.now_ms)


def units(node: RaftNode) -> list[list[tuple[int, int, list[list[bytes]]]]]:
    return [decode_batch(split_entry(entry)[3]) for entry in node.log.entries[1:]]


def test_what_comes_in_one_turn_is_one_proposal_and_each_gets_its_own_replies() -> None:
    one = node()
    others = [Another(one) for _ in range(20)]
    one.client.raw(request("incr", "a") + request("set", "b", 1))
    for other in others:
        other.raw(request("incr", "a"))
    assert one.log.waiting == []
    one.clock.advance(0)
    assert len(one.log.waiting) == 1
    one.log.deliver()
    assert one.client.raw(b"") == b":1\r\n" + OK
    assert [other.raw(b"") for other in others] == [b":%d\r\n" % number for number in range(2, 22)]
    assert [len(each) for each in units(one)] == [21]


def test_reads_of_one_turn_share_one_question() -> None:
    one = node()
    others = [Another(one) for _ in range(20)]
    one.client.raw(request("get", "a"))
    for other in others:
        other.raw(request("get", "a") * 3)
    one.turn()
    assert one.log.reads == 1
    assert one.client.raw(b"") == b"$-1\r\n"
    assert {other.raw(b"") for other in others} == {3 * b"$-1\r\n"}
    assert len(one.log.entries) == 1


def test_a_write_and_a_read_behind_it_on_the_same_connection_keep_their_order() -> None:
    one = node()
    data = b"".join(request("set", "a", number) + request("get", "a") for number in range(50))
    assert one.raw(data) == b"".join(OK + b"$%d\r\n%d\r\n" % (len(str(number)), number) for number in range(50))


def test_commands_of_other_connections_do_not_come_between_those_of_one_run() -> None:
    one = node()
    other = Another(one)
    one.client.raw(b"".join(request("append", "a", "x") for _ in range(10)))
    other.raw(b"".join(request("append", "a", "y") for _ in range(10)))
    one.turn()
    assert one.store().get(b"a") == b"x" * 10 + b"y" * 10


def test_a_proposal_is_bounded_and_what_exceeds_it_is_the_next_one() -> None:
    one = node()
    others = [Another(one) for _ in range(5)]
    for number, other in enumerate(others):
        other.raw(request("set", f"k{number}", "v" * (RAFT_APPEND_MAX_BYTES // 3)))
    one.turn()
    assert [len(each) for each in units(one)] == [2, 2, 1]
    assert [other.raw(b"") for other in others] == [OK] * 5
    assert max(map(len, one.log.entries)) < RAFT_APPEND_MAX_BYTES


def test_a_command_too_large_for_an_entry_is_refused_before_it_is_proposed() -> None:
    one = node()
    value = "v" * (RAFT_COMMAND_MAX_BYTES - 20)
    assert one.run("set", "a", value) == OK
    refused = one.client.raw(request("set", "a", value + 20 * "v"))
    assert refused == b"-ERR a command on a store of level raft has at most %d bytes\r\n" % RAFT_COMMAND_MAX_BYTES
    assert len(one.log.entries) == 2


def test_a_write_of_a_plug_in_is_refused_and_its_reads_run() -> None:
    @command("plug.write", arity=2, flags="write", group="generic", summary="")
    def write(session: Any, args: list[bytes]) -> bytes:
        raise AssertionError

    @command("plug.read", arity=2, flags="readonly", group="generic", summary="")
    def read(session: Any, args: list[bytes]) -> bytes:
        return OK

    one = node()
    one.client.server.table = one.client.server.table.extended([write, read])
    store = one.client.session.store
    one.client.connect()
    one.client.session.store = store
    assert one.run("plug.write", "a") == b"-ERR 'plug.write' comes from a plug-in; it does not run on a store of level raft\r\n"
    assert one.run("plug.read", "a") == OK


@pytest.mark.parametrize(
    ("error", "write", "read"),
    [
        (NotLeaderError(0), NO_LEADER, NO_LEADER),
        (BusyError("full"), BUSY, BUSY),
        (OutcomeUnknownError("late"), UNKNOWN, NO_LEADER),
    ],
)
def test_a_failure_says_whether_a_write_may_have_happened(error: Exception, write: str, read: str) -> None:
    one = node()
    one.client.raw(request("set", "a", 1) * 2)
    one.clock.advance(0)
    one.log.fail(error)
    assert one.client.raw(b"") == 2 * (b"-%b\r\n" % write.encode())
    one.client.raw(request("get", "a"))
    one.clock.advance(0)
    one.log.fail(error)
    assert one.client.raw(b"") == b"-%b\r\n" % read.encode()
    assert one.run("get", "a") == b"$-1\r\n"


def test_a_failure_of_another_kind_counts_as_an_unknown_outcome() -> None:
    seen: list[Any] = []
    observe: Any = seen.append
    globalLogPublisher.addObserver(observe)
    one = node()
    one.client.raw(request("set", "a", 1))
    one.clock.advance(0)
    one.log.fail(StorageError("broken"))
    globalLogPublisher.removeObserver(observe)
    assert one.client.raw(b"") == b"-%b\r\n" % UNKNOWN.encode()
    assert any("log_failure" in event for event in seen)


def test_a_bound_of_memory_refuses_writes_at_the_door_and_only_there() -> None:
    one = RaftNode(others=1)
    one.create(maxmemory=200_000)
    one.run("select", "accounts")
    while (reply := one.run("append", "a", "x" * 10_000))[:1] == b":":
        pass
    assert reply.startswith(b"-OOM ")
    entries = len(one.log.entries)
    assert one.run("set", "b", 1).startswith(b"-OOM ")
    assert len(one.log.entries) == entries
    assert one.run("del", "a") == b":1\r\n"
    assert one.run("set", "b", 1) == OK


# What the leader does unasked


def test_the_leader_lets_time_pass_where_keys_are_due_and_only_then() -> None:
    one = node()
    upkeep = RaftUpkeep(one.log, one.machine.stores, one.clock, lambda: one.client.now_ms / 1000)
    upkeep.start()
    one.run("set", "a", 1, "px", 150)
    entries = len(one.log.entries)
    one.clock.advance(EXPIRY_TICK_SECONDS)
    assert one.log.waiting == []
    one.client.now_ms += 150
    one.log.leads = False
    one.clock.advance(EXPIRY_TICK_SECONDS)
    assert one.log.waiting == []
    one.log.leads = True
    one.clock.advance(EXPIRY_TICK_SECONDS)
    one.clock.advance(EXPIRY_TICK_SECONDS)
    assert len(one.log.waiting) == 1
    one.turn()
    assert len(one.log.entries) == entries + 1
    assert [len(machine.stores.stores["accounts"]) for machine in one.log.machines] == [0, 0]
    one.clock.advance(EXPIRY_TICK_SECONDS)
    assert one.log.waiting == []
    upkeep.stop()


def test_what_is_left_of_a_life_is_shown_by_the_clock_of_the_node_that_is_asked() -> None:
    one = node()
    one.run("set", "a", 1, "px", 5000)
    one.client.now_ms += 3000
    assert one.run("pttl", "a") == b":2000\r\n"
    one.client.now_ms += 3000
    assert one.run("pttl", "a") == b":0\r\n"
    assert one.run("get", "a") == b"$1\r\n1\r\n"


def test_a_tick_that_finds_no_leader_is_tried_again() -> None:
    one = node()
    upkeep = RaftUpkeep(one.log, one.machine.stores, one.clock, lambda: one.client.now_ms / 1000)
    one.run("set", "a", 1, "px", 150)
    one.client.now_ms += 150
    upkeep.look()
    one.log.fail(NotLeaderError(0))
    upkeep.look()
    one.turn()
    assert len(one.store()) == 0


def test_what_is_evicted_is_proposed_by_the_leader_and_goes_everywhere() -> None:
    one = RaftNode(others=2)
    one.create(maxmemory=400_000, eviction="lru")
    one.run("select", "accounts")
    upkeep = RaftUpkeep(one.log, one.machine.stores, one.clock, lambda: one.client.now_ms / 1000)
    refused = 0
    for number in range(400):
        refused += one.run("set", f"k{number}", "v" * 3000) != OK
        one.client.now_ms += 100
        upkeep.look()
        one.turn()
    assert refused == 0
    assert one.store().used_bytes() < 425_000
    assert len({machine.stores.digest() for machine in one.log.machines}) == 1
    assert one.run("exists", "k399") == b":1\r\n"


def test_where_nothing_may_go_nothing_is_proposed() -> None:
    one = RaftNode()
    one.create(maxmemory=10, eviction="volatile-lru")
    one.log.commit(batch_entry([encode_unit(1, 2, [[b"SET", b"a", b"1"]])]))
    upkeep = RaftUpkeep(one.log, one.machine.stores, one.clock, lambda: one.client.now_ms / 1000)
    assert one.machine.stores.over_bound()
    upkeep.look()
    assert one.log.waiting == []


# Against Redis


class RaftPair(Pair):
    """Redis, and a store of level raft."""

    def __init__(self, port: int, resp: int) -> None:
        super().__init__(port, resp)
        one = node(self.ours.now_ms)
        if resp == 3:
            one.run("hello", 3)
        one.run("select", "accounts")
        self.ours: Any = Raftly(one)


class Raftly:
    """Runs commands on a node as an `EngineClient` does."""

    def __init__(self, one: RaftNode) -> None:
        self.one = one
        self.failures = one.client.failures

    @property
    def now_ms(self) -> int:
        return self.one.client.now_ms

    @now_ms.setter
    def now_ms(self, now_ms: int) -> None:
        self.one.client.now_ms = now_ms

    def run(self, *args: bytes | str | int) -> bytes:
        return self.one.run(*args)


def comparable(args: list[bytes]) -> bool:
    """Whether a command means the same in a store that has no others beside it, and whose values are shorter."""
    return args[0] != b"move" and not (args[0] == b"copy" and b"db" in [arg.lower() for arg in args]) and b"536870911" not in args


@pytest.mark.parametrize(("state", "resp"), [("expiring", 2), ("with a neighbour", 3)])
def test_every_command_answers_as_in_redis(redis_port: int, state: str, resp: int) -> None:
    pair = RaftPair(redis_port, resp)
    differences = []
    for args in filter(comparable, COMMANDS):
        pair.clear()
        for preparation in STATES[state]:
            pair.both(*preparation)
        found = pair.differences(args) or pair.left_behind((b"K", b"L", b"d"))
        differences += [f"{args} → {line}" for line in found]
    pair.clear()
    pair.redis.close()
    assert not differences, "\n".join(differences)
    assert not pair.ours.failures
