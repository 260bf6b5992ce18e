"""The engine while a store is selected that a log changes: what is handed over, in which order, and what is answered when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hypercache.errors import CommandError
from hypercache.limits import REPLIES_PER_READ_MAX_BYTES
from hypercache.resp.replies import OK
from tests.resp.exchange import EngineClient, request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NO_LEADER = "CLUSTERDOWN no leader"


class RecordingLog:
    """Takes what is handed over; the test answers it."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, list[list[bytes]]] | str] = []
        self.waiting: list[Callable[[Any], None]] = []

    def refuses(self, entry: Any, request: list[bytes]) -> str | None:
        return "ERR too large" if len(request[-1]) > 1000 else None

    def write(self, resp: int, requests: list[list[bytes]], done: Callable[[Sequence[bytes] | str], None]) -> None:
        self.runs.append((resp, requests))
        self.waiting.append(done)

    def read(self, done: Callable[[str | None], None]) -> None:
        self.runs.append("read")
        self.waiting.append(done)

    def answer(self, outcome: Any) -> None:
        self.waiting.pop(0)(outcome)


class Refusing:
    """The log of a store that was dropped."""

    def refuses(self, entry: Any, request: list[bytes]) -> str:
        return "ERR no such store"


class LoggedClient(EngineClient):
    """A client whose store has a log."""

    def __init__(self, **options: Any) -> None:
        self.ready = 0
        super().__init__(**options)
        self.log = RecordingLog()
        self.store.log = self.log

    @property
    def store(self) -> Any:
        return self.keyspace.by_index(0)

    def connect(self) -> None:
        super().connect()
        self.engine._on_ready = self._ready

    def _ready(self) -> None:
        self.ready += 1

    def answered(self, outcome: Any) -> bytes:
        """Let the log answer; return what the engine has to say then."""
        before = self.ready
        self.log.answer(outcome)
        assert self.ready == before + 1
        return self.raw(b"")


def many(*commands: tuple[Any, ...]) -> bytes:
    return b"".join(request(*each) for each in commands)


def test_commands_of_one_kind_in_a_row_are_one_run_and_the_next_waits_for_it() -> None:
    client = LoggedClient()
    data = many(("set", "a", 1), ("incr", "a"), ("get", "a"), ("exists", "a"), ("del", "a"), ("ping",))
    assert client.raw(data) == b""
    assert client.log.runs == [(2, [[b"set", b"a", b"1"], [b"incr", b"a"]])]
    assert client.engine.waiting
    assert client.raw(b"") == b""
    assert client.answered([OK, b":2\r\n"]) == OK + b":2\r\n"
    assert client.log.runs[1:] == ["read"]
    client.store.put(b"a", b"2")
    assert client.answered(None) == b"$1\r\n2\r\n:1\r\n"
    assert client.log.runs[2:] == [(2, [[b"del", b"a"]])]
    assert client.answered([b":1\r\n"]) == b":1\r\n+PONG\r\n"
    assert not client.engine.stalled
    assert not client.engine.waiting


def test_nothing_of_a_write_is_done_here() -> None:
    client = LoggedClient()
    client.raw(request("SET", "a", 1))
    assert client.answered([OK]) == OK
    assert not len(client.store)


def test_a_read_waits_for_the_log_and_sees_what_was_applied_meanwhile() -> None:
    client = LoggedClient()
    assert client.raw(request("GET", "a")) == b""
    client.store.put(b"a", b"new")
    assert client.answered(None) == b"$3\r\nnew\r\n"


@pytest.mark.parametrize("command", [("set", "a", 1), ("get", "a"), ("memory", "usage", "a"), ("object", "encoding", "a")])
def test_an_error_of_the_log_answers_every_command_of_the_run_and_the_connection_goes_on(command: tuple[Any, ...]) -> None:
    client = LoggedClient()
    client.raw(many(command, command, ("ping",)))
    assert client.answered(NO_LEADER) == 2 * b"-CLUSTERDOWN no leader\r\n" + b"+PONG\r\n"
    assert client.server.error_replies == 2
    assert client.server.commands_processed == 3


def test_what_is_refused_at_the_door_is_answered_in_its_place_and_never_handed_over() -> None:
    client = LoggedClient()
    data = many(("set", "a", 1), ("nosuch",), ("get",), ("set", "a", "x" * 1001), ("set", "b", 2))
    assert client.raw(data) == b""
    assert client.log.runs == [(2, [[b"set", b"a", b"1"]])]
    answer = client.answered([OK])
    assert answer.startswith(OK + b"-ERR unknown command 'nosuch'")
    assert answer.endswith(b"-ERR wrong number of arguments for 'get' command\r\n-ERR too large\r\n")
    assert client.log.runs[1:] == [(2, [[b"set", b"b", b"2"]])]
    assert client.answered([OK]) == OK
    assert client.server.table.commands["set"].calls == 2
    assert client.server.table.commands["set"].rejections == 1


def test_without_memory_writes_that_need_some_are_refused_at_the_door() -> None:
    client = LoggedClient()
    client.keyspace.maxmemory = 1
    assert client.raw(many(("set", "a", 1), ("del", "a"))).startswith(b"-OOM ")
    assert client.log.runs == [(2, [[b"del", b"a"]])]


def test_a_write_without_memory_ends_the_run_before_it() -> None:
    client = LoggedClient()
    client.keyspace.maxmemory = 1
    client.raw(many(("del", "a"), ("set", "a", 1)))
    assert client.log.runs == [(2, [[b"del", b"a"]])]
    assert client.answered([b":0\r\n"]).startswith(b":0\r\n-OOM ")


def test_what_is_read_while_a_run_is_out_is_kept_and_run_behind_it() -> None:
    client = LoggedClient()
    client.raw(request("set", "a", 1))
    assert not client.engine.behind
    assert client.raw(request("ping") + request("set", "b", 1)) == b""
    assert client.engine.behind
    assert len(client.log.runs) == 1
    assert client.answered([OK]) == OK + b"+PONG\r\n"
    assert client.log.runs[1:] == [(2, [[b"set", b"b", b"1"]])]


def test_select_in_the_same_read_leads_into_the_log_and_out_of_it() -> None:
    client = LoggedClient()
    data = many(("set", "a", 1), ("select", 1), ("set", "a", 2), ("get", "a"), ("select", 0), ("set", "a", 3))
    assert client.raw(data) == b""
    assert client.answered([OK]) == OK + OK + OK + b"$1\r\n2\r\n" + OK
    assert client.log.runs[1:] == [(2, [[b"set", b"a", b"3"]])]


def test_reply_modes_swallow_replies_that_come_later() -> None:
    client = LoggedClient()
    client.raw(many(("client", "reply", "skip"), ("set", "a", 1), ("set", "a", 2)))
    assert client.answered([OK, OK]) == OK
    client.raw(many(("client", "reply", "off"), ("set", "a", 1), ("client", "reply", "on"), ("set", "a", 2)))
    assert client.answered([OK]) == OK
    assert client.answered([b"+second\r\n"]) == b"+second\r\n"


def test_a_pause_holds_a_command_back_before_it_is_handed_over_and_ends_a_run() -> None:
    client = LoggedClient()
    client.raw(many(("client", "pause", 100), ("set", "a", 1)))
    assert client.engine.stalled
    assert not client.engine.waiting
    assert client.log.runs == []
    client.now_ms += 101
    assert client.raw(b"") == b""
    assert client.log.runs == [(2, [[b"set", b"a", b"1"]])]
    assert client.answered([OK]) == OK


def test_a_run_that_is_out_is_answered_during_a_pause() -> None:
    client = LoggedClient()
    client.raw(many(("set", "a", 1), ("set", "b", 1)))
    client.server.pause_until_ms = client.now_ms + 100
    assert client.answered([OK, OK]) == OK + OK


def test_the_protocol_version_goes_along() -> None:
    client = LoggedClient()
    client.raw(many(("hello", 3), ("set", "a", 1, "get")))
    assert client.log.runs == [(3, [[b"set", b"a", b"1", b"get"]])]


def test_quit_and_a_fault_wait_for_the_run_before_them() -> None:
    client = LoggedClient()
    client.raw(many(("set", "a", 1), ("quit",), ("set", "b", 1)))
    assert not client.session.closing
    assert client.answered([OK]) == OK + OK
    assert client.session.closing
    assert len(client.log.runs) == 1
    client = LoggedClient()
    assert client.raw(request("set", "a", 1) + b"*x\r\n") == b""
    assert client.answered([OK]) == OK + b"-ERR Protocol error: invalid multibulk length\r\n"


def test_reads_of_a_store_that_was_dropped_meanwhile_are_refused() -> None:
    client = LoggedClient()
    client.store.put(b"a", b"1")
    client.raw(request("get", "a"))
    client.store.log = Refusing()
    assert client.answered(None) == b"-ERR no such store\r\n"


def test_an_end_lets_out_the_replies_of_the_run_and_runs_nothing_behind_it() -> None:
    client = LoggedClient()
    client.raw(many(("set", "a", 1), ("set", "b", 2), ("get", "a"), ("set", "c", 3)))
    client.raw(request("set", "d", 4))
    client.engine.finish()
    assert client.answered([OK, OK]) == OK + OK
    assert len(client.log.runs) == 1
    assert not client.engine.stalled


def test_large_replies_of_reads_go_out_in_bounded_parts_behind_one_question() -> None:
    client = LoggedClient()
    size, count = 8 << 20, 2 * REPLIES_PER_READ_MAX_BYTES // (8 << 20)
    client.store.put(b"a", b"x" * size)
    client.raw(request("get", "a") * count + request("ping"))
    answer = client.answered(None)
    parts = [len(answer)]
    while client.engine.stalled:
        answer = client.raw(b"")
        parts.append(len(answer))
    assert max(parts) < REPLIES_PER_READ_MAX_BYTES + 2 * size
    assert sum(parts) == count * (size + 12) + len(b"+PONG\r\n")
    assert client.log.runs == ["read"]


def test_commands_are_counted_once_with_their_failures() -> None:
    client = LoggedClient()
    client.raw(many(("incr", "a"), ("incr", "b")))
    client.answered([b":1\r\n", b"-ERR value is not an integer or out of range\r\n"])
    client.raw(request("get", "a"))
    client.answered(None)
    table = client.server.table.commands
    assert (table["incr"].calls, table["incr"].failures, table["get"].calls) == (2, 1, 1)
    assert client.server.commands_processed == client.session.commands == 3
    assert client.server.error_replies == 1
    assert client.session.last_command == "get"


class RecordingTracer:
    """Records spans."""

    sampler = None

    def __init__(self) -> None:
        self.spans: list[tuple[str, bytes, int]] = []

    def accept(self, traceparent: bytes) -> object:
        if traceparent == b"bad":
            raise CommandError("ERR invalid traceparent")
        return traceparent

    def label(self, trace: object) -> str:
        return ""

    def execute(self, trace: Any, entry: Any, session: Any, request: Any, run: Any, since_ms: int = 0) -> bytes | None:
        reply: bytes | None = run(request)
        if reply is not None:
            self.spans.append((entry.name, reply, since_ms))
        return reply


def test_a_traced_command_is_a_run_of_its_own_recorded_from_when_it_was_handed_over() -> None:
    client = LoggedClient()
    tracer: Any = RecordingTracer()
    client.server.tracer = tracer
    client.connect()
    client.raw(many(("hypercache.trace", "x"), ("set", "a", 1), ("set", "b", 1)))
    assert client.log.runs == [(2, [[b"set", b"a", b"1"]])]
    begun = client.now_ms
    client.now_ms += 20
    assert client.answered([OK]) == OK
    assert tracer.spans == [("set", OK, begun)]
    assert client.answered([OK]) == OK
    client.raw(many(("hypercache.trace", "y"), ("get", "a")))
    begun = client.now_ms
    client.now_ms += 20
    client.answered(None)
    assert tracer.spans[1:] == [("get", b"$-1\r\n", begun)]
    assert client.session.trace is None


def test_before_authentication_nothing_is_handed_over() -> None:
    client = LoggedClient(password=b"secret")
    assert client.raw(request("set", "a", 1)).startswith(b"-NOAUTH")
    assert client.raw(request("auth", "secret") + request("set", "a", 1)) == OK
    assert client.log.runs == [(2, [[b"set", b"a", b"1"]])]
