"""Which commands at the door are traced, and what is recorded of them."""

from __future__ import annotations

import random

import pytest

from hypercache.config import TracingSettings
from hypercache.errors import ConfigurationError
from hypercache.resp.tracing import Sampler
from hypercache.tracing import Tracer, current_trace
from hypercache.wire.tracing import label, parent_span_id, trace_id
from tests.resp.exchange import EngineClient, request
from tests.tracing.recording import NODE_ID, SPAN_ID, TRACE_ID, TRACEPARENT, RecordingTracer


def door(tracer: Tracer | None, **options: bytes) -> EngineClient:
    client = EngineClient(**options)  # type: ignore[arg-type]
    client.server.tracer = tracer
    client.connect()
    return client


def names(tracer: RecordingTracer) -> list[str]:
    return [span.name for span in tracer.spans]


# Sampling


@pytest.mark.parametrize("share", [0.001, 0.01, 0.25, 0.9])
def test_the_sample_is_the_share_however_commands_are_batched(share: float) -> None:
    rng = random.Random(11)
    sampler = Sampler(share, rng)
    commands = picked = 0
    while commands < 200_000:
        count = rng.choice((1, 1, 2, 16, 100))
        commands += count
        if sampler.due(count):
            picked += sum(sampler.pick() for _ in range(count))
    deviation = (commands * share * (1 - share)) ** 0.5
    assert abs(picked - commands * share) < 4 * deviation


def test_each_command_of_a_batch_is_as_likely_to_be_picked() -> None:
    sampler = Sampler(0.05, random.Random(12))
    places = [0] * 8
    for _ in range(20_000):
        if sampler.due(len(places)):
            for place in range(len(places)):
                places[place] += sampler.pick()
    assert max(places) - min(places) < 6 * (20_000 * 0.05) ** 0.5


def test_a_share_of_one_picks_all_and_the_smallest_is_no_trouble() -> None:
    every = Sampler(1.0, random.Random(1))
    assert all(every.due(1) and every.pick() for _ in range(100))
    rare = Sampler(5e-324, random.Random(1))
    assert not rare.due(1_000_000)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_beyond_zero_and_one_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match=r"tracing\.sample"):
        RecordingTracer(share)


def test_the_same_seed_samples_the_same_commands() -> None:
    def run(seed: int) -> list[str]:
        tracer = RecordingTracer(0.3, seed=seed)
        client = door(tracer)
        for number in range(50):
            client.raw(request("ECHO", number) + request("SET", "k", number) + request("GET", "k"))
        return names(tracer)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_sampled_commands_answer_as_the_others_do() -> None:
    traced, plain = door(RecordingTracer(0.5)), door(None)
    script = (
        request("SET", "k", "v"),
        request("GET", "k") * 40 + request("GET", "none") * 3,
        request("MGET", "k", "none") + request("INCR", "k") + request("SET", "n", 1) + request("INCR", "n"),
        request("NOSUCH", "x") + request("GET") + request("CLIENT", "NOSUCH"),
        request("HELLO", 3) + request("GET", "none") + request("CLIENT", "REPLY", "SKIP") + request("PING") + request("PING"),
    )
    for data in script:
        assert traced.raw(data) == plain.raw(data)
    for entry in ("get", "set", "mget", "incr", "ping"):
        assert traced.server.table.commands[entry].calls == plain.server.table.commands[entry].calls
    assert traced.session.commands == plain.session.commands
    assert traced.server.commands_processed == plain.server.commands_processed


def test_without_a_sample_nothing_is_recorded() -> None:
    tracer = RecordingTracer(0)
    client = door(tracer)
    for number in range(200):
        client.run("SET", "k", number)
    assert tracer.sampler is None
    assert tracer.spans == []


def test_with_all_sampled_each_command_has_a_span_and_a_trace_of_its_own() -> None:
    tracer = RecordingTracer(1)
    client = door(tracer)
    client.raw(request("SET", "k", "v") + request("GET", "k") * 3 + request("CLIENT", "ID"))
    assert names(tracer) == ["set", "get", "get", "get", "client|id"]
    assert len({trace_id(span.trace) for span in tracer.spans}) == 5
    assert all(parent_span_id(span.trace) == bytes(8) for span in tracer.spans)


# HYPERCACHE.TRACE


def test_a_clients_traceparent_is_taken_for_its_next_command_alone() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    assert client.run("HYPERCACHE.TRACE", TRACEPARENT) == b"+OK\r\n"
    client.raw(request("GET", "k") + request("GET", "k"))
    (span,) = tracer.spans
    assert span.name == "get"
    assert trace_id(span.trace).hex() == TRACE_ID
    assert parent_span_id(span.trace).hex() == SPAN_ID
    assert span.trace.path == ()


def test_it_works_within_a_pipeline_and_the_rest_runs_untraced() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    reply = client.raw(
        request("GET", "k") + request("hypercache.trace", TRACEPARENT) + request("SET", "k", "v") + request("GET", "k")
    )
    assert reply == b"$-1\r\n+OK\r\n+OK\r\n$1\r\nv\r\n"
    assert names(tracer) == ["set"]


def test_a_clients_traceparent_goes_before_the_sample() -> None:
    tracer = RecordingTracer(1)
    client = door(tracer)
    client.raw(request("HYPERCACHE.TRACE", TRACEPARENT) + request("PING") + request("PING"))
    assert names(tracer) == ["ping", "ping"]
    assert [trace_id(span.trace).hex() == TRACE_ID for span in tracer.spans] == [True, False]


def test_what_a_client_does_not_sample_is_not_traced_here_either() -> None:
    tracer = RecordingTracer(1)
    client = door(tracer)
    client.run("HYPERCACHE.TRACE", f"00-{TRACE_ID}-{SPAN_ID}-00")
    client.run("PING")
    assert names(tracer) == []
    client.run("PING")
    assert names(tracer) == ["ping"]


@pytest.mark.parametrize("way", [("HYPERCACHE.TRACE", "off"), ("RESET",)])
def test_off_and_reset_take_it_back(way: tuple[str, ...]) -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    client.run("HYPERCACHE.TRACE", TRACEPARENT)
    client.run(*way)
    client.run("PING")
    # RESET is a command that was traced itself.
    assert names(tracer) == ["reset"] * (way == ("RESET",))


def test_the_last_of_two_traceparents_counts() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    client.run("HYPERCACHE.TRACE", f"00-{'1' * 32}-{SPAN_ID}-01")
    client.run("HYPERCACHE.TRACE", TRACEPARENT)
    client.run("PING")
    assert [trace_id(span.trace).hex() for span in tracer.spans] == [TRACE_ID]


@pytest.mark.parametrize("text", [b"", b"on", b"00-1-2-01", TRACEPARENT.upper().encode(), b"\xff" * 55])
def test_an_invalid_traceparent_is_an_error_and_leaves_the_connection_as_it_was(text: bytes) -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    assert client.run("HYPERCACHE.TRACE", text) == b"-ERR invalid traceparent\r\n"
    client.run("PING")
    assert tracer.spans == []


def test_one_connections_traceparent_is_not_anothers() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    client.run("HYPERCACHE.TRACE", TRACEPARENT)
    client.connect()
    client.run("PING")
    assert tracer.spans == []


def test_where_nothing_traces_the_command_says_so() -> None:
    client = door(None)
    assert client.run("HYPERCACHE.TRACE", TRACEPARENT).startswith(b"-ERR tracing is not available")
    assert client.run("HYPERCACHE.TRACE", "OFF") == b"+OK\r\n"
    assert client.run("PING") == b"+PONG\r\n"


def test_only_who_has_authenticated_may_trace() -> None:
    tracer = RecordingTracer()
    client = door(tracer, password=b"secret")
    assert client.run("HYPERCACHE.TRACE", TRACEPARENT).startswith(b"-NOAUTH")
    client.run("AUTH", "secret")
    assert tracer.spans == []


def test_a_command_that_a_pause_holds_back_is_traced_once_when_it_runs() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    client.run("CLIENT", "PAUSE", 100)
    client.server.pause_until_ms = client.now_ms + 100
    client.server.pause_writes_only = True
    assert client.raw(request("HYPERCACHE.TRACE", TRACEPARENT) + request("SET", "k", "v")) == b"+OK\r\n"
    assert client.raw(b"") == b""
    assert tracer.spans == []
    client.now_ms += 200
    assert client.raw(b"") == b"+OK\r\n"
    assert names(tracer) == ["set"]
    assert trace_id(tracer.spans[0].trace).hex() == TRACE_ID


# What a span says


def test_a_span_says_what_and_where_but_no_key_and_no_value() -> None:
    tracer = RecordingTracer(1)
    client = door(tracer)
    client.run("SET", "the-key", "the-value")
    client.run("SELECT", 3)
    client.run("LPOP-like-unknown", "the-key")
    client.run("SET", "the-key", "v", "the-option")
    client.run("INCR", "the-key")
    assert names(tracer) == ["set", "select", "unknown command", "set", "incr"]
    assert [span.error for span in tracer.spans] == ["", "", "ERR", "ERR", ""]
    assert tracer.spans[0].attributes == {"hypercache.store": "default", "hypercache.node": str(NODE_ID), "hypercache.hops": 0}
    assert "the-" not in repr(tracer.spans)
    assert "LPOP" not in repr(tracer.spans)


def test_a_span_lasts_as_the_command_does_and_never_ends_before_it_starts() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    echo = client.server.table.commands["echo"]
    function = echo.function

    def run(step: float) -> int:
        def slow(session: object, args: list[bytes]) -> bytes | None:
            tracer.now += step
            return function(session, args)  # type: ignore[arg-type]

        echo.function = slow
        client.run("HYPERCACHE.TRACE", TRACEPARENT)
        client.run("ECHO", "x")
        span = tracer.spans[-1]
        return span.end_ns - span.start_ns

    assert run(0.25) == pytest.approx(250_000_000, abs=1000)
    assert run(-5.0) == 0


def test_a_bug_in_a_traced_command_is_answered_with_the_trace() -> None:
    tracer = RecordingTracer()
    client = door(tracer)
    seen: list[object] = []

    def broken(session: object, args: list[bytes]) -> bytes:
        seen.append(current_trace())
        raise RuntimeError("the-secret")

    client.server.table.commands["echo"].function = broken
    assert client.run("ECHO", "x") == b"-ERR internal error, see the node's log\r\n"
    client.run("HYPERCACHE.TRACE", TRACEPARENT)
    reply = client.run("ECHO", "x")
    (span,) = tracer.spans
    assert reply == f"-ERR internal error, see the node's log {label(span.trace)}\r\n".encode()
    assert span.error == "ERR"
    assert seen == [None, span.trace]
    assert current_trace() is None


def test_without_an_exporter_traces_still_mark_what_goes_wrong() -> None:
    tracer = Tracer(TracingSettings(), rng=random.Random(1), wall=lambda: 0.0, node_id=1)
    client = door(tracer)
    client.server.table.commands["echo"].function = lambda session, args: 1 // 0  # type: ignore[assignment, return-value]
    client.run("HYPERCACHE.TRACE", TRACEPARENT)
    assert b" [trace " in client.run("ECHO", "x")


# What is remembered


def test_the_keys_of_traced_writes_are_remembered_where_there_are_peers() -> None:
    tracer = RecordingTracer(1)
    client = door(tracer)
    client.run("SET", "early", "v")
    assert tracer.changed.held == {}
    tracer.replicates = True
    client.run("SELECT", 2)
    client.raw(
        request("GET", "read") + request("MSET", "a", 1, "b", 2) + request("INCR", "a", "wrong") + request("SETRANGE", "c", -1, "x")
    )
    assert list(tracer.changed.held) == [("db2", b"a"), ("db2", b"b")]
    assert len({trace.request_id for trace in tracer.changed.held.values()}) == 1


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    tracer = RecordingTracer(1)
    tracer.replicates = True
    client = door(tracer)
    client.run("SET", b"x" * 1025, "v")
    assert tracer.changed.held == {}
    for number in range(1100):
        client.run("SET", number, "v")
    client.run("SET", 500, "again")
    held = [key for _, key in tracer.changed.held]
    assert len(held) == 1024
    assert held[0] == b"76"
    assert held[-1] == b"500"
