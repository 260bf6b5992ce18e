"""Stores of level raft: the same entries give the same records, whatever one node does besides."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.cluster.batches import batch_entry, decode_answer, encode_unit
from hypercache.cluster.machine import ClusterMachine
from hypercache.cluster.pieces import END, frame, frames
from hypercache.control.commands import CreateStore, DropStore, proposal
from hypercache.control.entries import EntryKind, decided, split_entry, undecided
from hypercache.errors import MalformedMessageError
from hypercache.limits import RAFT_ANSWER_MAX_BYTES, RAFT_SNAPSHOT_PIECE_BYTES, RAFT_VALUE_MAX_BYTES
from hypercache.resp.replies import OK
from hypercache.store import Store
from tests.cluster.raft_log import NODE_ID, make_machine
from tests.resp.exchange import NOW_MS, EngineClient

ROOT = Path(__file__).parents[2]
KEYS = [b"a", b"b", b"c", b"d"]


class Replicas:
    """Members that apply the same entries; time is the test's."""

    def __init__(self, count: int = 2, **options: int | str) -> None:
        self.now_ms = NOW_MS
        self.machines = [make_machine(lambda: self.now_ms / 1000) for _ in range(count)]
        self.index = 0
        self.number = 0
        self.create("s", **options)

    def entry(self, data: bytes) -> bytes:
        data = self.machines[0].prepare(data)
        self.index += 1
        answers = {machine.apply(self.index, NODE_ID, data) for machine in self.machines}
        assert len(answers) == 1
        return answers.pop()

    def create(self, name: str, **options: int | str) -> None:
        self.entry(proposal(CreateStore(name, "raft", **options)))  # type: ignore[arg-type]
        self.number = self.index

    def drop(self, name: str) -> None:
        self.entry(proposal(DropStore(name)))

    def run(self, *commands: tuple[bytes | str | int, ...], resp: int = 2) -> list[bytes]:
        requests = [[each if isinstance(each, bytes) else str(each).encode() for each in args] for args in commands]
        return decode_answer(self.entry(batch_entry([encode_unit(self.number, resp, requests)])))[0]

    def tick(self) -> None:
        self.entry(batch_entry([]))

    def store(self, at: int = 0, name: str = "s") -> Store:
        return self.machines[at].stores.stores[name]

    def digests(self) -> set[int]:
        return {machine.stores.digest() for machine in self.machines}


def test_every_member_has_the_same_records_and_answers_the_same() -> None:
    replicas = Replicas(3)
    assert replicas.run(("set", "a", 1), ("incr", "a"), ("append", "b", "x"), ("get", "a"), ("lpush", "a", 1)) == [
        OK,
        b":2\r\n",
        b":1\r\n",
        b"-ERR this command does not run on a store of level raft\r\n",
        b"-ERR this command does not run on a store of level raft\r\n",
    ]
    assert len(replicas.digests()) == 1
    assert sorted(replicas.store(2).keys()) == [b"a", b"b"]


def test_an_error_and_a_bug_in_a_command_are_replies_and_the_rest_of_the_entry_is_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replicas = Replicas()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Store, "replace", broken)
    assert replicas.run(("set", "a", "x"), ("incr", "a"), ("append", "a", "y"), ("set", "b", 1)) == [
        OK,
        b"-ERR value is not an integer or out of range\r\n",
        b"-ERR internal error, see the node's log\r\n",
        OK,
    ]
    assert replicas.store().get(b"b") == b"1"


def test_the_protocol_version_of_the_client_decides_about_the_reply() -> None:
    replicas = Replicas()
    assert replicas.run(("getdel", "a"), resp=2) == [b"$-1\r\n"]
    assert replicas.run(("getdel", "a"), resp=3) == [b"_\r\n"]


def test_a_command_on_other_stores_is_refused() -> None:
    replicas = Replicas()
    refused = b"-ERR a store of level raft exchanges no keys with others\r\n"
    assert replicas.run(("set", "a", 1), ("move", "a", 1), ("copy", "a", "b", "db", 1), ("copy", "a", "b")) == [
        OK,
        refused,
        refused,
        b":1\r\n",
    ]


def test_flushing_empties_the_one_store_alone() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1))
    other = replicas.number
    replicas.create("t")
    assert replicas.run(("set", "b", 1), ("flushall",)) == [OK, OK]
    assert len(replicas.store(0, "t")) == 0
    replicas.number = other
    assert len(replicas.store()) == 1
    assert replicas.run(("flushdb",)) == [OK]
    assert len(replicas.store()) == 0


# Time


def test_a_key_expires_when_an_entry_says_what_time_it_is_and_for_everybody_at_once() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1, "px", 100), ("set", "b", 1))
    replicas.now_ms += 100
    for at in range(2):
        assert replicas.store(at).get(b"a") == b"1"
    assert replicas.machines[0].stores.due(replicas.now_ms)
    replicas.tick()
    for at in range(2):
        assert len(replicas.store(at)) == 1
        assert replicas.store(at).get(b"a") is None
    assert not replicas.machines[0].stores.due(replicas.now_ms + 10**9)


def test_after_some_have_expired_the_next_is_due_at_its_own_deadline() -> None:
    replicas = Replicas(1)
    replicas.run(*(("set", f"k{number}", 1, "px", 1 + number % 100) for number in range(5000)))
    for passed in (20, 60, 99):
        replicas.now_ms = NOW_MS + passed
        replicas.tick()
        assert len(replicas.store()) == 5000 - 50 * passed
        assert not replicas.machines[0].stores.due(NOW_MS + passed)
        assert replicas.machines[0].stores.due(NOW_MS + passed + 1)


def test_what_is_due_is_gone_before_the_commands_of_the_entry_run_in_every_store() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1, "px", 100), ("set", "n", 5, "px", 100))
    first = replicas.number
    replicas.create("t")
    replicas.now_ms += 100
    assert replicas.run(("set", "x", 1)) == [OK]
    assert len(replicas.store()) == 0
    replicas.number = first
    assert replicas.run(("incr", "n"), ("persist", "a")) == [b":1\r\n", b":0\r\n"]


def test_a_deadline_in_the_past_leaves_nothing_behind() -> None:
    replicas = Replicas()
    assert replicas.run(("set", "a", 1), ("set", "b", 1, "pxat", NOW_MS - 1), ("pexpireat", "a", 1)) == [OK, OK, b":1\r\n"]
    assert [len(replicas.store(at)) for at in range(2)] == [0, 0]


def test_time_never_goes_back_whatever_the_leaders_clock_does() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1, "px", 1000))
    replicas.now_ms += 500
    replicas.tick()
    replicas.now_ms -= 10_000
    assert replicas.run(("set", "b", 1, "px", 100)) == [OK]
    assert replicas.machines[0].stores.now_ms == NOW_MS + 500
    assert replicas.store().deadline(b"b") == NOW_MS + 600
    assert split_entry(replicas.machines[0].prepare(batch_entry([])))[0] == NOW_MS + 500
    # An entry that an older leader decided on says less, and changes nothing.
    late = decided(undecided(EntryKind.STORES, b"\xdd\0\0\0\0"), NOW_MS, 1)
    for machine in replicas.machines:
        machine.apply(99, NODE_ID, late)
        assert machine.stores.now_ms == NOW_MS + 500


def test_entries_of_the_control_plane_let_time_pass_too() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1, "px", 100))
    replicas.now_ms += 100
    replicas.create("t")
    assert len(replicas.store()) == 0


def test_a_store_gives_keys_its_own_life_where_a_write_names_none() -> None:
    replicas = Replicas(ttl_ms=1000)
    replicas.run(("set", "a", 1), ("set", "b", 1, "px", 50), ("incr", "c"), ("mset", "d", 1, "e", 2), ("setex", "f", 9, 1))
    store = replicas.store()
    assert [store.deadline(key) for key in (b"a", b"b", b"c", b"d", b"e", b"f")] == [
        NOW_MS + 1000,
        NOW_MS + 50,
        NOW_MS + 1000,
        NOW_MS + 1000,
        NOW_MS + 1000,
        NOW_MS + 9000,
    ]
    assert replicas.run(("incr", "b"), ("persist", "a")) == [b":2\r\n", b":1\r\n"]
    assert store.deadline(b"b") == NOW_MS + 50
    assert store.deadline(b"a") == 0


# What one node does alone


def test_reads_memory_figures_and_access_times_change_nothing() -> None:
    replicas = Replicas(2, maxmemory=1, eviction="lru")
    quiet, busy = replicas.store(0), replicas.store(1)
    random_ = random.Random(3)
    for round_ in range(200):
        key = random_.choice(KEYS)
        replicas.run(("set", key, "v" * round_, "px", random_.randrange(1, 50)), ("setrange", "z", round_, "x"))
        replicas.now_ms += random_.randrange(20)
        for each in KEYS:
            busy.get(each)
            busy.touch(each)
            busy.contains(each)
        busy.random_key()
        busy.scan(0, 100)
        busy.used_bytes()
        busy.victims(3)
        assert len(quiet) == len(busy)
    assert len(replicas.digests()) == 1


def test_the_hash_seed_of_a_process_changes_nothing() -> None:
    found = set()
    for seed in ("0", "1", "4711"):
        code = "from tests.cluster.test_raft_stores import seeded_run; print(seeded_run())"
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment, check=True, text=True)
        found.add(done.stdout)
    assert len(found) == 1
    assert found.pop().strip()


def seeded_run() -> str:
    """Apply what a seed says; return the digest and the last answers."""
    replicas = Replicas(1)
    random_ = random.Random(5)
    answers: list[list[bytes]] = []
    for _ in range(300):
        replicas.now_ms += random_.randrange(100)
        answers.append(replicas.run(*(random_command(random_) for _ in range(random_.randrange(1, 5)))))
    return f"{replicas.digests()} {answers[-100:]}"


def random_command(random_: random.Random) -> tuple[bytes | str | int, ...]:
    key, other = random_.choice(KEYS), random_.choice(KEYS)
    number = random_.randrange(1, 300)
    return random_.choice(
        [
            ("set", key, number),
            ("set", key, number, "px", number),
            ("set", key, number, "get", "keepttl"),
            ("incrby", key, number),
            ("incrbyfloat", key, "0.1"),
            ("append", key, "1"),
            ("getdel", key),
            ("del", key, other),
            ("rename", key, other),
            ("copy", key, other, "replace"),
            ("pexpire", key, number, "gt"),
            ("pexpire", key, number),
            ("persist", key),
            ("setbit", key, number, 1),
            ("bitop", "not", key, other),
            ("mset", key, 1, other, 2),
            ("getex", key, "px", number),
            ("setrange", key, number % 20, "zz"),
        ]
    )


_key = st.sampled_from(KEYS)
_value = st.one_of(st.integers(-5, 300).map(lambda number: b"%d" % number), st.binary(max_size=8))
_ms = st.integers(1, 400)
_command = st.one_of(
    st.tuples(st.just(b"SET"), _key, _value),
    st.tuples(st.just(b"SET"), _key, _value, st.sampled_from([b"NX", b"XX", b"GET", b"KEEPTTL"])),
    st.tuples(st.just(b"SET"), _key, _value, st.just(b"PX"), _ms),
    st.tuples(st.sampled_from([b"INCR", b"GETDEL", b"PERSIST", b"DEL"]), _key),
    st.tuples(st.sampled_from([b"APPEND", b"GETSET", b"SETNX"]), _key, _value),
    st.tuples(st.just(b"PEXPIRE"), _key, _ms),
    st.tuples(st.just(b"RENAME"), _key, _key),
    st.tuples(st.just(b"RENAMENX"), _key, _key),
    st.tuples(st.just(b"GETEX"), _key, st.just(b"PX"), _ms),
    st.tuples(st.just(b"MSETNX"), _key, _value, _key, _value),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.lists(_command, min_size=1, max_size=4), st.integers(0, 150), st.booleans()), max_size=25))
def test_the_replies_are_those_of_a_plain_store(steps: list[tuple[list[tuple[bytes | int, ...]], int, bool]]) -> None:
    replicas = Replicas(2)
    plain = EngineClient()
    for commands, elapsed, snapshot in steps:
        replicas.now_ms += elapsed
        plain.now_ms += elapsed
        assert replicas.run(*commands) == [plain.run(*command) for command in commands]
        for key in KEYS:
            assert (replicas.store(1).peek(key), replicas.store(1).deadline(key)) == (
                plain.session.store.peek(key),
                plain.session.store.deadline(key),
            )
        if snapshot:
            replicas.machines[1] = reborn(replicas.machines[1])
    assert len(replicas.digests()) == 1


# Which stores there are


def test_a_store_that_was_dropped_answers_so_and_another_one_of_its_name_is_another() -> None:
    replicas = Replicas()
    replicas.run(("set", "a", 1))
    old, held = replicas.number, replicas.store()
    replicas.drop("s")
    assert replicas.run(("set", "a", 1), ("incr", "a")) == 2 * [b"-ERR no such store\r\n"]
    assert len(held) == 0
    replicas.create("s")
    assert replicas.run(("incr", "a")) == [b":1\r\n"]
    replicas.number = old
    assert replicas.run(("incr", "a")) == [b"-ERR no such store\r\n"]


def test_an_entry_that_cannot_be_read_changes_nothing_and_stops_nobody() -> None:
    replicas = Replicas()
    before = replicas.digests()
    for data in (b"", b"short", undecided(EntryKind.STORES, b"\xff"), bytes(16) + b"\x09", undecided(EntryKind.STORES, b"")):
        for machine in replicas.machines:
            assert machine.apply(9, NODE_ID, data) == b""
    assert replicas.digests() == before


def test_values_and_answers_are_bounded() -> None:
    replicas = Replicas()
    assert replicas.run(("setrange", "a", RAFT_VALUE_MAX_BYTES, "x"))[0].startswith(b"-ERR string exceeds maximum")
    replicas.run(("setrange", "a", RAFT_VALUE_MAX_BYTES - 1, "x"))
    replies = replicas.run(*[("getex", "a")] * (RAFT_ANSWER_MAX_BYTES // RAFT_VALUE_MAX_BYTES + 2), ("getdel", "a"))
    assert replies[-1] == b"-ERR not done: the replies to the commands before it are too long together\r\n"
    assert sum(map(len, replies)) < RAFT_ANSWER_MAX_BYTES + 2 * RAFT_VALUE_MAX_BYTES
    assert len(replicas.store()) == 1


# Snapshots


def reborn(machine: ClusterMachine, cut: int = 1000) -> ClusterMachine:
    """Return a new member that was given a snapshot, cut into pieces of some size."""
    stream = b"".join(machine.freeze())
    new = make_machine(machine._wall)
    new.adopt(new.load(stream[at : at + cut] for at in range(0, len(stream), cut)))
    return new


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_a_snapshot_brings_back_records_time_and_stores_however_it_is_cut(cut: int) -> None:
    replicas = Replicas(1, ttl_ms=7, maxmemory=12345)
    replicas.run(*(("set", f"k{number}", "v" * number, "px", 10_000 + number) for number in range(100)))
    replicas.create("empty")
    replicas.now_ms += 3
    replicas.tick()
    replicas.machines.append(reborn(replicas.machines[0], cut))
    assert len(replicas.digests()) == 1
    assert replicas.machines[1].stores.now_ms == NOW_MS + 3
    assert replicas.store(1).ttl_ms == 7
    assert replicas.store(1).maxmemory == 12345
    assert set(replicas.machines[1].stores.stores) == {"s", "empty"}
    assert replicas.store(1).used_bytes() == pytest.approx(replicas.store(0).used_bytes(), rel=0.05)
    replicas.now_ms += 10_047
    replicas.tick()
    assert len(replicas.store(0)) == len(replicas.store(1)) == 49
    assert len(replicas.digests()) == 1


def test_what_is_applied_after_a_freeze_is_not_in_it() -> None:
    replicas = Replicas(1)
    replicas.run(*(("set", f"k{number}", number) for number in range(3000)), ("set", "t", 1, "px", 5))
    digest = replicas.digests()
    pieces = replicas.machines[0].freeze()
    replicas.run(
        *(("set", f"k{number}", "new") for number in range(0, 3000, 3)),
        *(("del", f"k{number}") for number in range(1, 3000, 3)),
        *(("pexpire", f"k{number}", 1000) for number in range(2, 3000, 6)),
        *(("append", f"k{number}", "x") for number in range(5, 3000, 6)),
        *(("set", f"other{number}", number) for number in range(1000)),
    )
    replicas.now_ms += 5
    replicas.tick()
    again = replicas.machines[0].freeze()
    changed = replicas.digests()
    replicas.run(("flushdb",))
    for frozen, wanted in ((pieces, digest), (again, changed)):
        new = make_machine()
        new.adopt(new.load(frozen))
        assert {new.stores.digest()} == wanted
    replicas.run(("set", "k1", "back"))
    assert len(replicas.store()) == 1


def test_the_pieces_of_a_snapshot_are_bounded() -> None:
    replicas = Replicas(1)
    replicas.run(*(("set", f"k{number}", "v" * 1000) for number in range(2000)))
    pieces = list(replicas.machines[0].freeze())
    assert len(pieces) > 8
    assert max(map(len, pieces)) < RAFT_SNAPSHOT_PIECE_BYTES + 1000


def test_who_has_a_store_selected_keeps_it_through_a_snapshot_where_it_is_still_there() -> None:
    replicas = Replicas(1)
    replicas.create("gone")
    stale = make_machine()
    snapshot = b"".join(replicas.machines[0].freeze())
    stale.adopt(stale.load([snapshot]))
    kept, gone = stale.stores.stores["s"], stale.stores.stores["gone"]
    replicas.drop("gone")
    replicas.number = 1
    replicas.run(("set", "a", 1))
    stale.adopt(stale.load(replicas.machines[0].freeze()))
    assert stale.stores.stores == {"s": kept}
    assert kept.get(b"a") == b"1"
    assert "no such store" in gone.log.refuses(None, [])


def test_a_damaged_snapshot_is_refused_and_leaves_what_is_there() -> None:
    replicas = Replicas(1)
    replicas.run(*(("set", f"k{number}", number) for number in range(100)))
    stream = b"".join(replicas.machines[0].freeze())
    machine = make_machine()
    for damaged in (b"", stream[:-1], stream[:-4], stream[:50], b"\xff" + stream[1:], stream[:4] + b"\xc1" + stream[5:]):
        with pytest.raises(MalformedMessageError):
            machine.load([damaged])
    assert not machine.stores.stores
    unknown = msgspec.msgpack.encode((77, [(b"k", b"v", 0)]))
    with pytest.raises(MalformedMessageError):
        machine.stores.load([b"\0\0\0\1\0", len(unknown).to_bytes(4, "big"), unknown, bytes(4)], {})


def test_frames_come_out_however_they_are_cut_and_half_a_frame_is_an_error() -> None:
    stream = frame(b"one") + END + frame(b"x" * 1000)
    for cut in (1, 2, 5, 2000):
        assert list(frames(stream[at : at + cut] for at in range(0, len(stream), cut))) == [b"one", b"", b"x" * 1000]
    for end in (2, 6, len(stream) - 1):
        with pytest.raises(MalformedMessageError):
            list(frames([stream[:end]]))
    with pytest.raises(MalformedMessageError):
        list(frames([b"\xff\xff\xff\xff"]))


def test_requests_are_whatever_bytes_clients_send() -> None:
    replicas = Replicas()
    assert replicas.run((b"SET", bytes(range(256)), b"\r\n\0")) == [OK]
    assert replicas.store().get(bytes(range(256))) == b"\r\n\0"
