"""The engine: order, authentication, pauses, reply modes, bugs, memory."""

from __future__ import annotations

import pytest

from hypercache.limits import REPLIES_PER_READ_MAX_BYTES, UNAUTHENTICATED_BULK_MAX_BYTES
from tests.resp.exchange import EngineClient, request

NOAUTH = b"-NOAUTH Authentication required.\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"


@pytest.mark.parametrize("spelling", ["{}", "{}x"])
@pytest.mark.parametrize("names", [("GET", "SET"), ("get", "set"), ("gEt", "sEt")])
def test_get_and_set_answer_the_same_however_they_are_spelt(names: tuple[str, str], spelling: str) -> None:
    client = EngineClient()
    get, set_ = names
    for size in (0, 1, 1023, 1024, 20_000):
        key, value = spelling.format(size), b"v" * size
        assert client.raw(request(get, key) + request(set_, key, value) + request(get, key)) == b"$-1\r\n+OK\r\n$%d\r\n%b\r\n" % (
            size,
            value,
        )
    assert client.server.table.commands["get"].calls == 10
    assert client.server.table.commands["set"].calls == 5
    assert client.server.commands_processed == 15
    client.run("hello", 3)
    assert client.run(get, "none") == b"_\r\n"


def test_nothing_runs_before_authentication_and_all_after_it_in_the_same_read() -> None:
    client = EngineClient(password=b"secret")
    data = request("set", "a", 1) + request("get", "a") + request("auth", "wrong") + request("ping")
    refused = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
    assert client.raw(data) == NOAUTH + NOAUTH + refused + NOAUTH
    assert not len(client.session.store)
    long = "x" * (UNAUTHENTICATED_BULK_MAX_BYTES + 1)
    assert client.raw(request("auth", "secret") + request("set", "a", long) + request("strlen", "a")) == b"+OK\r\n+OK\r\n:16385\r\n"


def test_a_long_argument_before_authentication_closes_the_connection() -> None:
    client = EngineClient(password=b"secret")
    long = "x" * (UNAUTHENTICATED_BULK_MAX_BYTES + 1)
    assert client.raw(request("ping") + request("auth", long)) == NOAUTH + b"-ERR Protocol error: unauthenticated bulk length\r\n"
    assert client.session.closing


def test_reset_takes_authentication_back() -> None:
    client = EngineClient(password=b"secret")
    assert client.raw(request("auth", "secret") + request("reset") + request("get", "a")) == b"+OK\r\n+RESET\r\n" + NOAUTH
    assert client.raw(request("get", "a")) == NOAUTH


def test_an_unknown_command_and_a_wrong_count_come_before_authentication_as_in_redis() -> None:
    client = EngineClient(password=b"secret")
    assert client.run("nosuch", "a").startswith(b"-ERR unknown command 'nosuch', with args beginning with: 'a' ")
    assert client.run("get") == b"-ERR wrong number of arguments for 'get' command\r\n"


def test_nothing_runs_after_quit() -> None:
    client = EngineClient()
    assert client.raw(request("quit") + request("set", "a", 1)) == b"+OK\r\n"
    assert client.session.closing
    assert not len(client.session.store)
    assert client.server.commands_processed == 1


def test_the_requests_before_a_fault_are_run_and_answered_and_nothing_after_it_is() -> None:
    client = EngineClient()
    assert client.raw(request("set", "a", 1) + b"*x\r\n" + request("set", "b", 1)) == (
        b"+OK\r\n-ERR Protocol error: invalid multibulk length\r\n"
    )
    assert client.session.closing
    assert list(client.session.store.keys()) == [b"a"]
    assert client.server.protocol_errors == 1


def test_a_pause_holds_commands_back_in_their_order_and_counts_each_once() -> None:
    client = EngineClient()
    assert client.raw(request("client", "pause", 100) + request("set", "a", 1) + request("get", "a")) == b"+OK\r\n"
    assert client.engine.stalled
    assert client.raw(request("get", "a") + b"*1\r\n$-1\r\n") == b""
    for _ in range(5):
        assert client.raw(b"") == b""
    assert client.server.commands_processed == 1
    client.now_ms += 101
    assert client.raw(b"") == b"+OK\r\n$1\r\n1\r\n$1\r\n1\r\n-ERR Protocol error: invalid bulk length\r\n"
    assert client.session.closing
    assert not client.engine.stalled
    assert client.server.commands_processed == 4


def test_a_fault_behind_a_held_command_is_answered_after_it() -> None:
    client = EngineClient()
    client.run("client", "pause", 100)
    assert client.raw(request("ping") + b"*1\r\n$-1\r\n") == b""
    assert not client.session.closing
    client.now_ms += 101
    assert client.raw(b"") == b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"
    assert client.session.closing


def test_a_held_authentication_is_not_overtaken() -> None:
    client = EngineClient(password=b"secret")
    client.server.pause_until_ms = client.now_ms + 100
    assert client.raw(request("auth", "secret") + request("ping") + b"*2\r\n$4\r\nECHO\r\n") == b""
    client.now_ms += 101
    assert client.raw(b"") == b"+OK\r\n+PONG\r\n"
    assert client.raw(b"$1\r\na\r\n") == b"$1\r\na\r\n"


def test_a_held_quit_ends_it() -> None:
    client = EngineClient()
    client.run("client", "pause", 100)
    client.raw(request("quit"))
    client.raw(request("set", "a", 1))
    client.now_ms += 101
    assert client.raw(b"") == b"+OK\r\n"
    assert client.session.closing
    assert not len(client.session.store)


def test_a_pause_of_writes_lets_reads_pass_and_ends_at_unpause() -> None:
    client = EngineClient()
    client.run("set", "a", 1)
    client.run("client", "pause", 1000, "write")
    assert client.run("get", "a") == b"$1\r\n1\r\n"
    assert client.run("set", "a", 2) == b""
    client.server.pause_until_ms = 0
    assert client.raw(b"") == b"+OK\r\n"
    assert client.run("get", "a") == b"$1\r\n2\r\n"


def test_client_reply_off_and_skip_swallow_replies() -> None:
    client = EngineClient()
    sequence = [("client", "reply", "skip"), ("get", "a"), ("get", "a"), ("client", "reply", "off"), ("get", "a"), ("nosuch",)]
    assert client.raw(b"".join(request(*args) for args in sequence)) == b"$-1\r\n"
    assert client.raw(request("set", "a", 1) + request("client", "reply", "on") + request("get", "a")) == b"+OK\r\n$1\r\n1\r\n"
    client.run("client", "reply", "off")
    assert client.raw(b"*x\r\n") == b""
    assert client.session.closing


def test_a_bug_in_a_command_is_an_error_reply_and_the_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    client = EngineClient()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    store = type(client.session.store)
    for name in ("get", "put", "contains", "peek"):
        monkeypatch.setattr(store, name, broken)
    error = b"-ERR internal error, see the node's log\r\n"
    data = request("ping") + request("get", "a") + request("set", "a", 1) + request("exists", "a") + request("ping")
    assert client.raw(data) == b"+PONG\r\n" + 3 * error + b"+PONG\r\n"
    assert [type(failure) for failure in client.failures] == [ZeroDivisionError] * 3
    assert not client.session.closing


def test_a_write_beyond_maxmemory_is_refused_and_a_read_is_not() -> None:
    client = EngineClient()
    client.run("set", "a", 1)
    client.keyspace.maxmemory = 1
    data = request("get", "a") + request("set", "b", 1) + request("append", "b", 1) + request("del", "a") + request("get", "a")
    assert client.raw(data) == b"$1\r\n1\r\n" + OOM + OOM + b":1\r\n$-1\r\n"
    assert client.server.table.commands["set"].rejections == 1
    assert client.server.error_replies == 2


def test_select_and_hello_hold_from_the_next_command_of_the_same_read() -> None:
    client = EngineClient()
    data = request("SET", "a", 1) + request("SELECT", 1) + request("GET", "a") + request("SET", "a", 2) + request("GET", "a")
    assert client.raw(data) == b"+OK\r\n+OK\r\n$-1\r\n+OK\r\n$1\r\n2\r\n"
    assert client.raw(request("HELLO", 3) + request("GET", "none")).endswith(b"_\r\n")


def test_large_replies_go_out_in_bounded_parts_and_none_is_lost() -> None:
    client = EngineClient()
    size, count = 8 << 20, 3 * REPLIES_PER_READ_MAX_BYTES // (8 << 20)
    client.run("set", "a", b"x" * size)
    one = len(client.run("get", "a"))
    for command in (("GET", "a"), ("getrange", "a", 0, -1)):
        answer = client.raw(request(*command) * count + request("ping"))
        assert client.engine.stalled
        parts = [len(answer)]
        while client.engine.stalled:
            answer = client.raw(b"")
            parts.append(len(answer))
        assert max(parts) <= REPLIES_PER_READ_MAX_BYTES + 2 * one
        assert sum(parts) == count * one + len(b"+PONG\r\n")
        assert answer.endswith(b"+PONG\r\n")


def test_an_unknown_command_shows_at_most_128_bytes_of_its_arguments() -> None:
    client = EngineClient()
    answer = client.run("nosuch" * 100, *["a" * 50] * 10)
    assert len(answer) < 128 + 160 + 80
    assert client.run(b"bad\r\nname") == b"-ERR unknown command 'bad  name', with args beginning with: \r\n"
