"""Every change reaches the store in a way that replication hears of, and nothing else does."""

from __future__ import annotations

import pytest

from tests.resp.exchange import NOW_MS, EngineClient

LATER = NOW_MS + 100_000


@pytest.fixture
def client() -> EngineClient:
    client = EngineClient()
    for store in client.keyspace.all_stores():
        store.dirty = {}
    client.run("mset", "n", "5", "t", "text", "f", "1.5")
    client.run("set", "e", "v", "pxat", LATER)
    changed(client).clear()
    return client


def changed(client: EngineClient) -> dict[bytes, int]:
    dirty = client.keyspace.by_index(0).dirty  # type: ignore[union-attr]
    assert dirty is not None
    return dirty


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("set n 1", "n"),
        ("set new 1 nx", "new"),
        ("set n 1 xx keepttl get", "n"),
        ("setnx new 1", "new"),
        ("setex n 10 v", "n"),
        ("psetex n 10 v", "n"),
        ("getset n 1", "n"),
        ("getdel n", "n"),
        ("mset n 1 t 2", "n t"),
        ("msetnx x 1 y 2", "x y"),
        ("incr n", "n"),
        ("decr n", "n"),
        ("incrby n 2", "n"),
        ("decrby n 2", "n"),
        ("incrbyfloat f 0.5", "f"),
        ("append t more", "t"),
        ("setrange t 1 x", "t"),
        ("setbit t 0 1", "t"),
        ("bitop and d n t", "d"),
        ("bitop or n none none", "n"),
        ("bitfield n set u8 0 1", "n"),
        ("del n t none", "n t"),
        ("unlink n", "n"),
        ("rename n m", "n m"),
        ("renamenx n m", "n m"),
        ("copy n m", "m"),
        ("move n 1", "n"),
        ("expire n 0", "n"),
        ("getex n pxat 1", "n"),
    ],
)
def test_a_write_is_journalled_as_a_whole_record(client: EngineClient, command: str, keys: str) -> None:
    assert not client.run(*command.split()).startswith(b"-")
    assert changed(client) == dict.fromkeys(keys.encode().split(), 0)


@pytest.mark.parametrize(
    "command",
    ["expire n 10", "pexpire n 10", f"expireat n {LATER}", f"pexpireat n {LATER}", "getex n ex 10", "persist e", "getex e persist"],
)
def test_a_mere_change_of_the_deadline_is_journalled_as_following_the_record(client: EngineClient, command: str) -> None:
    key = command.split()[1].encode()
    store = client.keyspace.by_index(0)
    assert store is not None
    record = store.record(key)
    assert record is not None
    client.run(*command.split())
    assert changed(client) == {key: record.stamp}


@pytest.mark.parametrize(
    "command",
    [
        "get n",
        "getex n",
        "mget n t",
        "strlen n",
        "getrange t 0 1",
        "lcs n t",
        "getbit n 0",
        "bitcount n",
        "bitpos n 1",
        "bitfield n get u8 0",
        "bitfield_ro n get u8 0",
        "exists n",
        "type n",
        "touch n",
        "ttl e",
        "object encoding n",
        "keys *",
        "scan 0",
        "randomkey",
        "dbsize",
        "set n 1 nx",
        "set none 1 xx",
        "setnx n 1",
        "msetnx n 1 new 2",
        "incr t",
        "incrby n x",
        "incrbyfloat t 1",
        "setrange t 0 ''",
        "setrange none 0 ''",
        "setrange t -1 x",
        "setbit n 1 0",
        "bitfield n overflow fail set u2 0 9",
        "bitop and none x y",
        "del none",
        "getdel none",
        "rename none x",
        "rename n n",
        "renamenx n t",
        "copy n t",
        "copy none t replace",
        "move none 1",
        "expire none 10",
        "expire n 10 xx",
        "expire e 10 nx",
        "expire e 10 gt",
        "expire n x",
        "persist n",
        "getex n persist",
        "getex none ex 10",
        "mset n",
    ],
)
def test_what_changes_nothing_is_not_journalled(client: EngineClient, command: str) -> None:
    client.run(*(word.strip("'") for word in command.split()))
    assert changed(client) == {}
    assert not client.failures


@pytest.mark.parametrize(
    ("command", "deadline"),
    [
        ("set e 1", 0),
        ("getset e 1", 0),
        ("mset e 1", 0),
        ("set e 1 keepttl", LATER),
        ("append e x", LATER),
        ("setrange e 0 x", LATER),
        ("setbit e 0 1", LATER),
        ("bitfield e set u8 0 1", LATER),
        ("set e 1 px 5000", NOW_MS + 5000),
        ("bitop not e t", 0),
        ("copy e e2 replace", LATER),
        ("rename t e", 0),
    ],
)
def test_a_write_keeps_or_clears_the_deadline_as_redis_does(client: EngineClient, command: str, deadline: int) -> None:
    client.run(*command.split())
    assert client.run("pexpiretime", "e") == b":%d\r\n" % (deadline or -1)


def test_increments_keep_the_deadline(client: EngineClient) -> None:
    client.run("pexpireat", "n", LATER)
    client.run("pexpireat", "f", LATER)
    for command in ("incr n", "decrby n 3", "incrbyfloat f 1"):
        client.run(*command.split())
    for key in ("n", "f"):
        assert client.run("pexpiretime", key) == b":%d\r\n" % LATER


def test_flushes_empty_the_selected_store_or_all(client: EngineClient) -> None:
    client.run("select", 1)
    client.run("set", "other", 1)
    client.run("flushdb")
    assert client.run("dbsize") == b":0\r\n"
    client.run("select", 0)
    assert client.run("dbsize") == b":4\r\n"
    client.run("select", 1)
    client.run("set", "other", 1)
    client.run("flushall", "async")
    assert client.run("dbsize") == b":0\r\n"
    client.run("select", 0)
    assert client.run("dbsize") == b":0\r\n"


@pytest.mark.parametrize(
    "args",
    [
        ("scan", "1" * 5000),
        ("bitfield", "n", "get", "u" + "1" * 5000, 0),
        ("bitfield", "n", "get", "u8", "#" + "1" * 5000),
        ("setbit", "n", "1" * 5000, 1),
        ("incrby", "n", "1" * 5000),
        ("incrbyfloat", "n", "1" * 5119),
        ("incrbyfloat", "n", "1e" + "0" * 5000 + "1"),
        ("expire", "n", "1" * 5000),
        ("copy", "n", "m", "db", "1" * 5000),
        ("keys", "[" * 70_000),
    ],
)
def test_no_argument_of_thousands_of_digits_brings_a_command_down(client: EngineClient, args: tuple[str | int, ...]) -> None:
    client.run(*args)
    assert not client.failures
