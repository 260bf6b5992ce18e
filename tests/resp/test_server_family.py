"""CONFIG, INFO, COMMAND, TIME, MEMORY."""

from __future__ import annotations

from collections.abc import Callable

import hiredis
import pytest

from hypercache.errors import CommandError
from hypercache.resp.parameters import Parameter, Parameters, parse_integer, parse_memory
from tests.resp.door import Door
from tests.resp.exchange import NOW_MS, EngineClient


class Settings:
    """Three that can be changed, one that cannot."""

    def __init__(self) -> None:
        self.values = {"maxmemory": 0, "timeout": 0, "maxclients": 100}
        changeable = [
            self._parameter("maxmemory", parse_memory),
            self._parameter("timeout", lambda text: parse_integer(text, 0, 1000)),
            self._parameter("maxclients", lambda text: parse_integer(text, 1, 1000)),
        ]
        self.parameters = Parameters([*changeable, Parameter("save", lambda: ""), Parameter("appendonly", lambda: "no")])

    def _parameter(self, name: str, parse: Callable[[str], int]) -> Parameter:
        def write(value: str) -> None:
            self.values[name] = parse(value)

        return Parameter(name, lambda: str(self.values[name]), write)


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def client(settings: Settings) -> EngineClient:
    client = EngineClient()
    client.server.parameters = settings.parameters
    return client


def info(client: EngineClient, *sections: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in client.run("info", *sections).decode().splitlines() if ":" in line)


def decode(answer: bytes) -> object:
    reader = hiredis.Reader()
    reader.feed(answer)
    return reader.gets()


def test_config_set_changes_all_or_none(client: EngineClient, settings: Settings) -> None:
    assert client.run("config", "set", "maxmemory", "1mb", "Timeout", 5) == b"+OK\r\n"
    assert settings.values == {"maxmemory": 1 << 20, "timeout": 5, "maxclients": 100}
    for bad in (("maxclients", "x"), ("nosuch", 1), ("save", "x"), ("timeout", 6), ("maxclients", 0)):
        assert client.run("config", "set", "timeout", 7, "maxmemory", "2mb", *bad).startswith(b"-ERR ")
        assert settings.values == {"maxmemory": 1 << 20, "timeout": 5, "maxclients": 100}


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("maxmemory", "1 gb"), "CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value"),
        (
            ("timeout", "5_0"),
            "CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an integer",
        ),
        (
            ("timeout", -1),
            "CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 1000 inclusive",
        ),
        (("timeout", 1, "timeout", 2), "CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter"),
        (("save", "1 1"), "CONFIG SET failed (possibly related to argument 'save') - can't set immutable config"),
        (("nosuch", 1), "Unknown option or number of arguments for CONFIG SET - 'nosuch'"),
        (("timeout", 1, "save"), "syntax error"),
    ],
)
def test_config_set_refuses_as_redis_does(client: EngineClient, args: tuple[str, ...], error: str) -> None:
    assert client.run("config", "set", *args) == f"-ERR {error}\r\n".encode()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("0", 0),
        ("100", 100),
        ("1b", 1),
        ("2k", 2000),
        ("2kb", 2048),
        ("3M", 3_000_000),
        ("3mB", 3 << 20),
        ("1gb", 1 << 30),
        ("1g", 10**9),
    ],
)
def test_memory_is_read_with_the_units_of_redis(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", [" 1", "1 ", "1tb", "1.5gb", "-1", "gb", "1bb", "٣", "1e3", "9" * 30])
def test_what_is_no_memory_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory value"):
        parse_memory(text)


@pytest.mark.parametrize("text", [" 1", "+1", "1_0", "01", "-0", "", "x", "٣", "9" * 30])
def test_what_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="parsed into an integer"):
        parse_integer(text, 0, 10)


def test_a_setting_that_refuses_late_takes_the_earlier_ones_back(settings: Settings) -> None:
    with pytest.raises(CommandError):
        settings.parameters.set_all([("timeout", "9"), ("maxclients", "9"), ("maxmemory", "bad")])
    assert settings.values == {"maxmemory": 0, "timeout": 0, "maxclients": 100}


def test_config_get_takes_several_patterns_and_answers_each_setting_once(client: EngineClient) -> None:
    assert decode(client.run("config", "get", "max*", "maxmemory", "SAVE")) == [
        b"maxmemory", b"0", b"maxclients", b"100", b"SAVE", b"",
    ]  # fmt: skip
    assert client.run("config", "get", "nosuch") == b"*0\r\n"
    # What redis-benchmark asks for when it starts.
    assert client.run("config", "get", "appendonly") == b"*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"
    client.run("hello", 3)
    assert client.run("config", "get", "save") == b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n"


def test_info_shows_what_happened(client: EngineClient) -> None:
    client.run("set", "a", 1)
    client.run("set", "b", 1, "ex", 10)
    client.run("get", "a")
    client.run("get", "none")
    client.run("incr", "x", "y")
    client.run("client", "nosuch")
    client.run("nosuch")
    client.run("incrby", "a", "abc")
    stats = info(client)
    assert stats["total_commands_processed"] == "8"
    assert stats["total_error_replies"] == "4"
    assert (stats["keyspace_hits"], stats["keyspace_misses"]) == ("1", "1")
    assert stats["db0"].startswith("keys=2,expires=1,avg_ttl=")
    assert int(stats["used_memory"]) > 0
    assert "cmdstat_get" not in stats
    calls = info(client, "commandstats")
    assert calls["cmdstat_get"] == "calls=2,rejected_calls=0,failed_calls=0"
    assert calls["cmdstat_incr"] == "calls=0,rejected_calls=1,failed_calls=0"
    assert calls["cmdstat_incrby"] == "calls=1,rejected_calls=0,failed_calls=1"
    assert set(info(client, "all")) >= set(stats) | set(calls)


def test_config_resetstat_sets_the_counters_to_zero(client: EngineClient) -> None:
    for args in (("get", "none"), ("nosuch",), ("set", "a", 1), ("incr",)):
        client.run(*args)
    assert client.run("config", "resetstat") == b"+OK\r\n"
    stats = info(client, "stats", "commandstats")
    assert stats["keyspace_misses"] == stats["total_error_replies"] == "0"
    assert stats["total_commands_processed"] == "1"
    assert "cmdstat_incr" not in stats


def test_info_has_the_sections_that_others_provide_and_those_that_are_asked_for(client: EngineClient) -> None:
    client.server.sections["replication"] = lambda: {"role": "master"}
    assert info(client, "replication") == {"role": "master"}
    assert info(client)["role"] == "master"
    assert info(client, "nosuch") == {}
    assert set(info(client, "REPLICATION", "clients")) == {
        "role",
        "connected_clients",
        "maxclients",
        "blocked_clients",
        "tracking_clients",
    }


def test_info_counts_the_connections_of_the_door() -> None:
    door = Door(3)
    answer = door.clients[0].run("info", "clients", "stats")
    assert b"connected_clients:3\r\n" in answer
    assert b"total_connections_received:3\r\n" in answer


def test_every_command_tells_about_itself(client: EngineClient) -> None:
    table = client.server.table
    listed = decode(client.run("command", "list"))
    assert isinstance(listed, list)
    assert sorted(listed) == sorted(name.encode() for name in table.commands)
    assert client.run("command", "count") == b":%d\r\n" % len(listed)
    entries = decode(client.run("command"))
    assert isinstance(entries, list)
    assert all(len(entry) == 10 for entry in entries)
    for resp in (2, 3):
        client.run("hello", resp)
        docs = decode(client.run("command", "docs"))
        assert isinstance(docs, dict if resp == 3 else list)
        assert len(docs) == len(listed) * (1 if resp == 3 else 2)
    for name, entry in table.commands.items():
        assert entry.summary, name
        assert {"readonly", "write"} - entry.flags, name


def test_command_info_names_arity_and_keys_as_redis_does(client: EngineClient) -> None:
    entry = decode(client.run("command", "info", "get", "GET|x", "client|kill", "nosuch"))
    assert isinstance(entry, list)
    get, of_get, kill, unknown = entry
    assert get[:2] + get[3:6] == [b"get", 2, 1, 1, 1]
    assert kill[0] == b"client|kill"
    assert of_get is None
    assert unknown is None


def test_time_is_the_clock_that_was_handed_in(client: EngineClient) -> None:
    client.now_ms = NOW_MS + 1234
    seconds, microseconds = divmod(client.now_ms * 1000, 1_000_000)
    assert decode(client.run("time")) == [b"%d" % seconds, b"%d" % microseconds]


def test_memory_usage_grows_with_the_value(client: EngineClient) -> None:
    client.run("mset", "small", "x", "large", "x" * 10_000)
    small, large = decode(client.run("memory", "usage", "small")), decode(client.run("memory", "usage", "large", "samples", 5))
    assert isinstance(small, int)
    assert isinstance(large, int)
    assert 9_000 < large - small < 11_000
    assert client.run("memory", "usage", "none") == b"$-1\r\n"
