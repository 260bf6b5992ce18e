"""The request parser: any chunking, any shape, all limits."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.limits import INLINE_MAX_BYTES, UNAUTHENTICATED_ARGUMENTS_MAX_COUNT, UNAUTHENTICATED_BULK_MAX_BYTES, VALUE_MAX_BYTES
from hypercache.resp import RequestParser
from hypercache.resp.parser import split_quoted
from tests.resp.exchange import request

# Values that look like the protocol: what counts type bytes must not be misled by them.
TRICKY = st.sampled_from(
    [b"", b"$", b"*", b"\r\n$3\r\n", b"\r\n*1\r\n", b"$-1\r\n", b"-", b"*99999\r", b">1\r", b"=5\r\n", b"|2\r\n", b":5", b"+OK\r\n"]
)
LONG = st.binary(max_size=10).map(lambda end: b"x" * 33_000 + end)
VALUES = st.one_of(TRICKY, st.binary(max_size=40), LONG)
REQUESTS = st.lists(st.lists(VALUES, min_size=1, max_size=4), max_size=8)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if end > start]


def parse(parts: list[bytes], value_max_bytes: int = VALUE_MAX_BYTES) -> tuple[list[list[bytes]], str | None]:
    parser = RequestParser(value_max_bytes=value_max_bytes)
    found = []
    for part in parts:
        found += parser.take(part)
        if parser.fault is not None:
            break
    return found, parser.fault


def strict(data: bytes) -> tuple[list[list[bytes]], str | None]:
    """Parse without hiredis: it takes no part before authentication."""
    parser = RequestParser(authenticated=False)
    return parser.take(data), parser.fault


@given(REQUESTS, st.lists(st.integers(0, 1 << 20), max_size=12))
@settings(deadline=None)
def test_any_chunking_gives_the_same_requests(requests: list[list[bytes]], cuts: list[int]) -> None:
    data = b"".join(request(*args) for args in requests)
    assert parse(chunks(data, cuts)) == (requests, None)


PIECES = st.sampled_from(
    [
        request("GET", "k"),
        request("SET", "k", "$"),
        b"*2\r\n$3\r\nGET\r\n",
        b"$1\r\na\r\n",
        b"+x\r\n",
        b"+$*\r\n",
        b":5\r\n",
        b"$-1\r\n",
        b"*1\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"_\r\n",
        b"#t\r\n",
        b",1.5\r\n",
        b"(12\r\n",
        b"($1\r\n",
        b"=6\r\n$$:ab\r\n",
        b"=6\r\n*$:$ab\r\n",
        b"~1\r\n",
        b"%1\r\n",
        b">1\r\n",
        b"|1\r\n",
        b"-ERR\r\n",
        b"PING\r\n",
        b"\r\n",
        b"*",
        b"$",
        b"1",
        b"\r",
        b"\n",
        b'"',
    ]
)


@given(st.lists(PIECES, max_size=10), st.lists(st.integers(0, 400), max_size=6))
@settings(deadline=None, max_examples=600)
def test_whatever_arrives_is_parsed_as_the_strict_parser_alone_does_it(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    expected = strict(data)
    assert parse([data]) == expected
    assert parse(chunks(data, cuts)) == expected
    assert all(type(argument) is bytes for args in expected[0] for argument in args)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"*3\r\n$3\r\nSET\r\n$1\r\n$\r\n:5\r\n", "Protocol error: expected '$', got ':'"),
        (b"*2\r\n$3\r\nGET\r\n+a$\r\n", "Protocol error: expected '$', got '+'"),
        (b"*2\r\n$3\r\nGET\r\n(12\r\n", "Protocol error: expected '$', got '('"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\n$\r\n#t\r\n", "Protocol error: expected '$', got '#'"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\n$\r\n_\r\n", "Protocol error: expected '$', got '_'"),
        (b"*2\r\n$3\r\nGET\r\n=7\r\n$xx:abc\r\n", "Protocol error: expected '$', got '='"),
    ],
)
def test_a_value_with_a_type_byte_does_not_smuggle_another_type_past_the_count(data: bytes, fault: str) -> None:
    assert parse([data]) == ([], fault)


@pytest.mark.parametrize("header", [b"~1", b"%1", b">1", b"|1", b"~0", b"%0"])
def test_a_header_of_another_type_behind_a_request_is_an_inline_request_and_swallows_nothing(header: bytes) -> None:
    parser = RequestParser()
    assert parser.take(request("GET", "k") + header + b"\r\n") == [[b"GET", b"k"], [header]]
    assert parser.take(request("PING")) == [[b"PING"]]


@pytest.mark.parametrize("header", [b"*2147483647", b"*1\r\n*2147483647", b"*1\r\n$4\r\nPINGxx>2147483647", b"*1\r\n|1000000000"])
def test_a_header_that_claims_many_elements_costs_nothing(header: bytes) -> None:
    started = time.process_time()
    for _ in range(20):
        parse([header + b"\r\n$1\r\na\r\n"])
    # hiredis alone takes four seconds for the first of them, once.
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("step", [1, 1000, 1 << 20])
def test_the_longest_inline_request_is_the_same_for_any_chunking(extra: int, step: int) -> None:
    data = b"ECHO " + b"a" * (INLINE_MAX_BYTES - 5 + extra) + b"\n"
    found, fault = parse([data[start : start + step] for start in range(0, len(data), step)])
    assert (len(found), fault) == ((1, None) if not extra else (0, "Protocol error: too big inline request"))


def test_a_count_line_whose_line_feed_is_missing_is_waited_for() -> None:
    parser = RequestParser()
    assert parser.take(b"*1\r\n$4\r\nPING\r\n*1\r") == [[b"PING"]]
    assert parser.take(b"\n$4\r\nPING\r\n") == [[b"PING"]]


def test_an_argument_has_at_most_the_length_that_is_set() -> None:
    data = request("SET", "k", b"x" * 1001)
    assert parse([data], value_max_bytes=1001) == ([[b"SET", b"k", b"x" * 1001]], None)
    assert parse([data], value_max_bytes=1000) == ([], "Protocol error: invalid bulk length")


def test_before_authentication_arguments_are_few_and_short() -> None:
    many = request(*["x"] * UNAUTHENTICATED_ARGUMENTS_MAX_COUNT)
    long = request("x" * UNAUTHENTICATED_BULK_MAX_BYTES)
    assert [len(args) for args in strict(many + long)[0]] == [UNAUTHENTICATED_ARGUMENTS_MAX_COUNT, 1]
    too_many = request(*["x"] * (UNAUTHENTICATED_ARGUMENTS_MAX_COUNT + 1))
    assert strict(too_many) == ([], "Protocol error: unauthenticated multibulk length")
    too_long = request("x" * (UNAUTHENTICATED_BULK_MAX_BYTES + 1))
    assert strict(too_long) == ([], "Protocol error: unauthenticated bulk length")


@pytest.mark.parametrize("size", [1000, 60_000])
def test_an_unfinished_request_beyond_the_query_buffer_limit_is_a_fault(size: int) -> None:
    parser = RequestParser(buffer_max_bytes=100_000)
    parser.take(b"*1000\r\n")
    for _ in range(100_000 // size):
        parser.take(b"$%d\r\n%b\r\n" % (size, b"x" * size))
        assert parser.fault is None
    parser.take(b"$%d\r\n%b\r\n" % (size, b"x" * size))
    assert parser.fault is not None
    assert "query buffer limit" in parser.fault


def test_a_large_value_is_not_copied_for_every_read() -> None:
    value = bytes(64 << 20)
    data = request("SET", "k", value)
    parser = RequestParser()
    started = time.process_time()
    found: list[list[bytes]] = []
    for start in range(0, len(data), 65536):
        found += parser.take(data[start : start + 65536])
    assert found == [[b"SET", b"k", value]]
    # Copied for every read it would be 32 GiB.
    assert time.process_time() - started < 2.0
    assert parser.buffered_bytes == 0


def test_many_arguments_byte_by_byte_take_time_in_proportion() -> None:
    data = request(*["x" * 100] * 3000)
    parser = RequestParser()
    started = time.process_time()
    found: list[list[bytes]] = []
    for byte in data:
        found += parser.take(bytes((byte,)))
    assert len(found[0]) == 3000
    # 330,000 reads of one byte.
    assert time.process_time() - started < 4.0


@pytest.mark.parametrize("value", [b"$", b"*", b"+(", b"$$$*", b"\r\n$3\r\n*2\r\n", b"a-b", b"a=b|c>d%e~f"])
def test_values_with_type_bytes_still_go_the_fast_way(value: bytes) -> None:
    assert RequestParser().whole(request("SET", "k", value) * 3) == [[b"SET", b"k", value]] * 3


@given(st.binary(max_size=60))
def test_splitting_an_inline_request_never_raises(line: bytes) -> None:
    words = split_quoted(line)
    assert words is None or all(type(word) is bytes for word in words)


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=5))
def test_quoted_words_of_any_bytes_come_back(words: list[bytes]) -> None:
    line = b" ".join(b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"' for word in words)
    assert split_quoted(line) == words
