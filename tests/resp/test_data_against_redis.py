"""Keys, expiry, strings and bits answer, and leave behind, what the real redis-server does, byte for byte."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.store.eviction import LeastFrequentlyUsed
from tests.resp.data_commands import COMMAND, COMMANDS, STATES
from tests.resp.exchange import EngineClient, SocketClient

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = (b"K", b"L", b"M", b"N", b"d")
CLOCKED = {b"ttl": 5, b"pttl": 5000, b"expiretime": 5, b"pexpiretime": 5000}
"""What is told of a lifetime that counts from now may differ by as much as passes between the two servers' commands."""


class Pair:
    """Redis and ours, side by side."""

    def __init__(self, port: int, resp: int) -> None:
        self.redis = SocketClient(port)
        self.ours = EngineClient()
        self.ours.now_ms = int(time.time() * 1000)
        if resp == 3:
            self.redis.run("hello", 3)
            self.ours.run("hello", 3)

    def both(self, *args: bytes | str | int) -> tuple[bytes, bytes]:
        expected = self.redis.run(*args)
        self.ours.now_ms = int(time.time() * 1000)
        return expected, self.ours.run(*args)

    def clear(self) -> None:
        self.both("flushall")

    def differences(self, args: list[bytes]) -> list[str]:
        expected, got = self.both(*args)
        if normal(args, expected) == normal(args, got) or (args[0] in CLOCKED and close(expected, got, CLOCKED[args[0]])):
            return []
        return [f"{args}: {got!r} is not {expected!r}"]

    def left_behind(self, keys: tuple[bytes, ...]) -> list[str]:
        """Return the differences in what the keys hold and when they expire."""
        return [line for key in keys for name in (b"get", b"pexpiretime") for line in self.differences([name, key])]


def normal(args: list[bytes], reply: bytes) -> bytes | list[bytes]:
    """Return a reply without the order of keys, which is any."""
    return sorted(reply.split(b"\r\n")) if args[0] in (b"keys", b"scan") else reply


def close(expected: bytes, got: bytes, tolerance: int) -> bool:
    values = [int(reply[1:]) if reply[:1] == b":" else -1 for reply in (expected, got)]
    return min(values) > 0 and abs(values[0] - values[1]) <= tolerance


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def pair(redis_port: int, request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(redis_port, request.param)
    pair.clear()
    yield pair
    pair.redis.run("select", 0)
    pair.clear()
    pair.redis.close()


@pytest.mark.parametrize("state", STATES)
def test_every_command_in_every_state_of_its_key_answers_as_redis_does(pair: Pair, state: str) -> None:
    differences = []
    for args in COMMANDS:
        pair.clear()
        for preparation in STATES[state]:
            pair.both(*preparation)
        found = pair.differences(args) or pair.left_behind(KEYS)
        differences += [f"{args} → {line}" for line in found]
    assert not differences, "\n".join(differences)
    assert not pair.ours.failures


def test_several_hundred_commands_are_compared() -> None:
    assert len(COMMANDS) > 500
    assert len({args[0] for args in COMMANDS}) > 50


@settings(max_examples=120, deadline=None)
@given(st.lists(COMMAND, max_size=25), st.sampled_from([2, 3]))
def test_any_sequence_of_commands_answers_as_redis_does(redis_port: int, commands: list[list[bytes]], resp: int) -> None:
    pair = Pair(redis_port, resp)
    try:
        pair.clear()
        for args in commands:
            assert not pair.differences(args)
        assert not pair.left_behind((b"a", b"b", b"c", b""))
        assert not pair.ours.failures
    finally:
        pair.redis.close()


def test_every_command_counts_hits_and_misses_as_redis_does(redis_port: int) -> None:
    pair = Pair(redis_port, 2)
    differences = []
    for state in ("missing", "integer"):
        for args in COMMANDS:
            if args[0] == b"scan":
                # To look at a key's type Redis looks the key up; here all keys are known to be strings.
                continue
            pair.clear()
            for preparation in STATES[state]:
                pair.both(*preparation)
            store = pair.ours.session.store
            before, ours_before = statistics(pair.redis), (store.hits, store.misses)
            pair.both(*args)
            after, ours_after = statistics(pair.redis), (store.hits, store.misses)
            expected = (after[0] - before[0], after[1] - before[1])
            got = (ours_after[0] - ours_before[0], ours_after[1] - ours_before[1])
            if got != expected:
                differences.append(f"{state}: {args} counts {got}, not {expected}")
    pair.redis.close()
    assert not differences, "\n".join(differences)


def statistics(redis: SocketClient) -> tuple[int, int]:
    text = redis.run("info", "stats")
    hits, misses = (re.search(rb"keyspace_%b:(\d+)" % name, text) for name in (b"hits", b"misses"))
    assert hits
    assert misses
    return int(hits[1]), int(misses[1])


def test_what_makes_a_value_longer_than_it_may_be_is_refused_as_redis_does(pair: Pair) -> None:
    limit = 1 << 20
    pair.ours.server.value_max_bytes = limit
    pair.redis.run("config", "set", "proto-max-bulk-len", limit)
    try:
        pair.both("set", "K", b"x" * (limit - 1))
        differences = []
        for args in (
            ["append", "K", "y"],
            ["append", "K", "y"],
            ["setrange", "K", limit - 1, "zz"],
            ["setrange", "K", limit - 1, "z"],
            ["setrange", "N", limit, "z"],
            ["setrange", "N", limit, ""],
            ["setbit", "K", limit * 8 - 1, 1],
            ["setbit", "K", limit * 8, 1],
            ["getbit", "K", limit * 8],
            ["bitfield", "K", "get", "u8", limit * 8],
            ["bitfield", "K", "get", "u8", f"#{limit}"],
            ["bitfield", "K", "set", "u8", f"#{limit - 1}", 7],
            ["lcs", "K", "K"],
            ["strlen", "K"],
        ):
            differences += pair.differences([str(arg).encode() for arg in args])
        assert not differences, "\n".join(differences)
    finally:
        pair.redis.run("config", "set", "proto-max-bulk-len", 512 << 20)


def test_object_freq_and_idletime_follow_the_policy_as_redis_does(pair: Pair) -> None:
    pair.redis.run("config", "set", "maxmemory-policy", "allkeys-lfu")
    pair.ours.keyspace.policy = LeastFrequentlyUsed("lfu")
    try:
        pair.both("set", "K", "v")
        for args in (["object", "freq", "K"], ["object", "idletime", "K"], ["object", "idletime", "N"], ["object", "freq", "N"]):
            assert not pair.differences([arg.encode() for arg in args])
    finally:
        pair.redis.run("config", "set", "maxmemory-policy", "noeviction")


def test_randomkey_answers_a_key_that_is_there(pair: Pair) -> None:
    assert not pair.differences([b"randomkey"])
    names = {b"$1\r\n%b\r\n" % name for name in (b"a", b"b", b"c")}
    pair.both("mset", "a", 1, "b", 2, "c", 3)
    assert {reply for _ in range(20) for reply in pair.both("randomkey")} <= names


def test_a_scan_from_cursor_to_cursor_returns_every_key_once(pair: Pair) -> None:
    names = {b"key:%d" % number for number in range(3000)}
    pair.both("mset", *(word for name in names for word in (name, b"v")))
    for client in (pair.redis, pair.ours):
        cursor, found = b"0", []
        while True:
            words = client.run("scan", cursor, "match", "key:*[0-4]", "count", 100).split(b"\r\n")
            cursor = words[2]
            found += words[5::2]
            if cursor == b"0":
                break
        assert len(found) == len(set(found))
        assert set(found) == {name for name in names if name[-1:] in b"01234"}


@pytest.mark.parametrize("value", [b"1", b"x" * 44, b"x" * 45, b"01", b"", b"9223372036854775808", b"-9223372036854775808"])
def test_a_set_value_has_the_encoding_that_redis_gives_it(pair: Pair, value: bytes) -> None:
    pair.both("set", "K", value)
    assert not pair.differences([b"object", b"encoding", b"K"])
