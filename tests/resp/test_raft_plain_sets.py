"""A read of plain SETs on a store of level raft, which the engine hands over in one go, is held to what any other is."""

from __future__ import annotations

from typing import Any

import pytest

from hypercache.limits import RAFT_COMMAND_MAX_BYTES
from hypercache.resp.replies import OK
from tests.cluster.raft_log import RaftNode
from tests.resp.exchange import request
from tests.tracing.recording import TRACEPARENT, RecordingTracer

SETS = b"".join(request("set", f"k{number}", number) for number in range(3))


@pytest.fixture
def node() -> RaftNode:
    made = RaftNode()
    made.create()
    assert made.run("select", "accounts") == OK
    return made


def test_they_are_one_run_and_are_counted(node: RaftNode) -> None:
    server = node.client.server
    session: Any = node.client.session
    before, of_session = server.commands_processed, session.commands
    calls = server.table.commands["set"].calls
    assert node.raw(SETS) == OK * 3
    assert len(node.log.entries) == 2
    assert server.commands_processed - before == session.commands - of_session == 3
    assert server.table.commands["set"].calls - calls == 3
    assert session.last_command == "set"


def test_a_pause_holds_them_back(node: RaftNode) -> None:
    node.run("client", "pause", 1000)
    assert node.client.raw(SETS) == b""
    node.clock.advance(0)
    assert node.log.waiting == []
    node.client.now_ms += 1001
    assert node.rest(node.client.raw(b"")) == OK * 3


def test_a_bound_that_is_exceeded_refuses_them() -> None:
    node = RaftNode()
    node.create(maxmemory=1000)
    assert node.run("select", "accounts") == OK
    for number in range(100):
        node.run("set", f"key{number}", "v" * 100)
    assert node.client.raw(SETS).count(b"-OOM") == 3
    assert node.log.waiting == []


def test_one_that_is_too_long_is_refused_and_the_others_are_done(node: RaftNode) -> None:
    data = request("set", "a", 1) + request("set", "b", "v" * RAFT_COMMAND_MAX_BYTES) + request("set", "c", 3)
    refused = b"-ERR a command on a store of level raft has at most %d bytes\r\n" % RAFT_COMMAND_MAX_BYTES
    assert node.raw(data) == OK + refused + OK
    assert node.store().get(b"b") is None


@pytest.mark.parametrize(("mode", "replies"), [("off", b""), ("skip", OK * 2)])
def test_client_reply_decides_which_replies_come(node: RaftNode, mode: str, replies: bytes) -> None:
    assert node.raw(request("client", "reply", mode)) == b""
    assert node.raw(SETS) == replies
    assert node.store().get(b"k2") == b"2"


def test_part_of_a_request_behind_them_is_kept(node: RaftNode) -> None:
    last = request("set", "k9", 9)
    assert node.raw(SETS + last[:10]) == OK * 3
    assert node.raw(last[10:]) == OK
    assert node.store().get(b"k9") == b"9"


def test_what_comes_while_they_wait_is_run_behind_them(node: RaftNode) -> None:
    node.client.raw(SETS)
    node.client.raw(request("get", "k1") + request("ping"))
    assert node.rest() == OK * 3 + b"$1\r\n1\r\n+PONG\r\n"


def test_a_fault_behind_them_is_answered_behind_them(node: RaftNode) -> None:
    assert node.raw(SETS + b"*1\r\n+no\r\n").startswith(OK * 3 + b"-ERR Protocol error")


def test_a_command_behind_them_that_is_another_is_run_too(node: RaftNode) -> None:
    assert node.raw(SETS + request("incr", "k1") + request("set", "k1", 5, "xx")) == OK * 3 + b":2\r\n" + OK


def test_the_sample_is_traced(node: RaftNode) -> None:
    tracer = traced(node, 1.0)
    assert node.raw(SETS) == OK * 3
    assert [span.name for span in tracer.spans].count("set") == 3


def test_one_that_a_client_has_traced_by_the_read_before_is(node: RaftNode) -> None:
    tracer = traced(node, 0.0)
    node.raw(request("hypercache.trace", TRACEPARENT))
    assert node.raw(SETS) == OK * 3
    assert [span.name for span in tracer.spans].count("set") == 1


def traced(node: RaftNode, share: float) -> RecordingTracer:
    tracer = RecordingTracer(share)
    node.client.server.tracer = tracer
    node.client.connect()
    node.raw(request("select", "accounts"))
    return tracer


def test_what_the_parser_holds_since_before_the_password_is_run_behind_them(node: RaftNode) -> None:
    node.client.server.password = b"secret"
    node.client.connect()
    data = request("auth", "secret") + request("select", "accounts") + SETS + request("ping")
    assert node.raw(data) == OK * 5 + b"+PONG\r\n"
