"""Bit operations on values of any length, of many pieces too, and in bounded time."""

from __future__ import annotations

import random
import time

import pytest

from tests.resp.exchange import EngineClient

PIECE = 1 << 16
LENGTHS = (0, 1, 7, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5)


def bits_of(value: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in value)


@pytest.fixture
def client() -> EngineClient:
    return EngineClient()


def put(client: EngineClient, key: str, value: bytes) -> None:
    client.session.store.put(key.encode(), value)


@pytest.mark.parametrize("length", LENGTHS)
def test_bitcount_counts_what_a_bit_by_bit_count_finds(client: EngineClient, length: int) -> None:
    rng = random.Random(length)
    value = rng.randbytes(length)
    bits = bits_of(value)
    put(client, "k", value)
    assert client.run("bitcount", "k") == b":%d\r\n" % bits.count("1")
    for _ in range(30):
        start, end = (rng.randrange(length * 8 + 1) for _ in range(2))
        assert client.run("bitcount", "k", start, end, "bit") == b":%d\r\n" % bits[start : end + 1].count("1")
        start, end = start // 8, end // 8
        assert client.run("bitcount", "k", start, end) == b":%d\r\n" % bits[start * 8 : end * 8 + 8].count("1")


@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_bitpos_finds_the_first_bit_of_a_range(client: EngineClient, length: int, bit: int) -> None:
    rng = random.Random(length)
    dull = b"\0" if bit else b"\xff"
    value = bytearray(dull * length)
    for place in rng.sample(range(length), min(length, 3)):
        value[place] = rng.randrange(256)
    bits = bits_of(bytes(value))
    put(client, "k", bytes(value))
    for _ in range(60):
        start = rng.randrange(length * 8 + 1)
        end = rng.choice((start + rng.randrange(20), rng.randrange(length * 8 + 1)))
        found = bits.find(str(bit), start, end + 1)
        assert client.run("bitpos", "k", bit, start, end, "bit") == b":%d\r\n" % found, (start, end)


@pytest.mark.parametrize("lengths", [(3, 3), (PIECE + 9, 5), (5, PIECE + 9), (0, PIECE), (PIECE, 2 * PIECE, 1), (3 * PIECE + 1,)])
@pytest.mark.parametrize("operation", ["and", "or", "xor"])
def test_bitop_takes_short_values_as_followed_by_zeros(client: EngineClient, operation: str, lengths: tuple[int, ...]) -> None:
    rng = random.Random(1)
    values = [rng.randbytes(length) for length in lengths]
    for number, value in enumerate(values):
        put(client, f"k{number}", value)
    longest = max(lengths)
    padded = [int.from_bytes(value.ljust(longest, b"\0"), "big") for value in values]
    total = padded[0]
    for number in padded[1:]:
        total = {"and": total & number, "or": total | number, "xor": total ^ number}[operation]
    assert client.run("bitop", operation, "d", *(f"k{number}" for number in range(len(values)))) == b":%d\r\n" % longest
    assert client.session.store.peek(b"d") == total.to_bytes(longest, "big")


@pytest.mark.parametrize("length", [1, PIECE, PIECE + 1])
def test_bitop_not_turns_every_bit(client: EngineClient, length: int) -> None:
    value = random.Random(2).randbytes(length)
    put(client, "k", value)
    client.run("bitop", "not", "d", "k")
    assert client.session.store.peek(b"d") == bytes(255 - byte for byte in value)


def test_setbit_grows_a_value_with_zeros_and_leaves_the_rest(client: EngineClient) -> None:
    put(client, "k", b"abc")
    assert client.run("setbit", "k", 8 * PIECE + 7, 1) == b":0\r\n"
    assert client.session.store.peek(b"k") == b"abc" + bytes(PIECE - 3) + b"\x01"
    assert client.run("setbit", "k", 8, 1) == b":0\r\n"
    assert client.session.store.peek(b"k") == b"a\xe2c" + bytes(PIECE - 3) + b"\x01"


def test_setbit_of_a_bit_that_is_set_already_writes_nothing(client: EngineClient) -> None:
    put(client, "k", b"\x80")
    store = client.keyspace.by_index(0)
    assert store is not None
    store.dirty = {}
    assert client.run("setbit", "k", 0, 1) == b":1\r\n"
    assert store.dirty == {}
    assert client.run("setbit", "k", 8, 0) == b":0\r\n"
    assert b"k" in store.dirty


def test_a_negative_number_saturates_an_unsigned_field_at_its_top(client: EngineClient) -> None:
    assert client.run("bitfield", "k", "overflow", "sat", "set", "u8", 0, -1, "get", "u8", 0) == b"*2\r\n:0\r\n:255\r\n"


def test_the_lowest_number_saturates_a_signed_field_at_its_bottom(client: EngineClient) -> None:
    # As Redis' documentation has it; its code wraps around here and gives the highest.
    assert client.run("bitfield", "k", "overflow", "sat", "set", "i8", 0, -(1 << 63), "get", "i8", 0) == b"*2\r\n:0\r\n:-128\r\n"


def test_64_mib_take_no_seconds(client: EngineClient) -> None:
    size = 64 << 20
    put(client, "ones", b"\xff" * size)
    put(client, "zeros", bytes(size))
    last = size * 8 - 1
    for args, reply in (
        (("bitcount", "ones"), size * 8),
        (("bitcount", "ones", 1, -2, "bit"), size * 8 - 2),
        (("bitpos", "zeros", 1, 3, -3, "bit"), -1),
        (("bitpos", "ones", 0), size * 8),
        (("setbit", "zeros", last, 1), 0),
        (("bitpos", "zeros", 1), last),
        (("bitop", "xor", "d", "ones", "zeros"), size),
        (("getbit", "d", last), 0),
        (("bitcount", "d"), last),
    ):
        started = time.process_time()
        assert client.run(*args) == b":%d\r\n" % reply, args
        assert time.process_time() - started < 2, args
    assert not client.failures
