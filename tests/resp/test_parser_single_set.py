"""A read of one SET, which the parser takes a shorter way, means what it means the general way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.resp import RequestParser
from tests.resp.exchange import request

PIECES = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\r\n", b"$1\r\na", b"\r\n$3\r\n", b"*3\r\n"]))


@given(st.sampled_from([b"SET", b"set", b"SEt", b"GET"]), PIECES, PIECES)
def test_it_gives_its_arguments(name: bytes, key: bytes, value: bytes) -> None:
    assert RequestParser().take(request(name, key, value)) == [[name, key, value]]


@pytest.mark.parametrize("key", [b"k", b"k\r\n"])
@pytest.mark.parametrize("value", [b"", b"v", b"v\r\n"])
def test_one_that_is_cut_anywhere_is_taken_when_the_rest_comes(key: bytes, value: bytes) -> None:
    data = request(b"SET", key, value)
    for cut in range(1, len(data)):
        parser = RequestParser()
        assert parser.take(data[:cut]) == []
        assert parser.take(data[cut:]) == [[b"SET", key, value]]
        assert parser.buffered_bytes == 0


@pytest.mark.parametrize(
    ("data", "taken", "fault"),
    [
        (b"*3\r\n$3\r\nSET\r\n$01\r\nk\r\n$1\r\nv\r\n", [], True),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nv\r\n", [], False),
        (b"*3\r\n$3\r\nSET\r\n$2\r\nk\r\n$1\r\nv\r\n", [], True),
        (b"*3\r\n$3\r\nSET\r\n+k\r\n$1\r\nv\r\n", [], True),
        (b"*3\r\n$3\r\nSET\r\n$-1\r\n\r\n$1\r\nv\r\n", [], True),
    ],
)
def test_one_that_is_unusual_goes_the_general_way(data: bytes, taken: list[list[bytes]], fault: bool) -> None:
    parser = RequestParser()
    assert parser.take(data) == taken
    assert (parser.fault is not None) is fault


def test_one_that_is_longer_than_a_value_may_be_is_held_to_that() -> None:
    parser = RequestParser(value_max_bytes=20)
    assert parser.take(request(b"SET", b"k", b"v" * 21)) == []
    assert parser.fault is not None


def test_two_in_one_read_are_both_taken() -> None:
    data = request(b"SET", b"k", b"v")
    assert RequestParser().take(data + data) == [[b"SET", b"k", b"v"]] * 2
