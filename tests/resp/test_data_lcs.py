"""The longest common subsequence is the one that Redis' table gives, and takes bounded work."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.resp.lcs import length_of, matched_pairs, ranges_of
from tests.resp.exchange import EngineClient


def reference(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """Fill the whole table and walk back through it as Redis does."""
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first, 1):
        for j, right in enumerate(second, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if left == right else max(table[i - 1][j], table[i][j - 1])
    pairs = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs


TEXTS = st.integers(1, 4).flatmap(lambda letters: st.lists(st.integers(97, 96 + letters), max_size=40).map(bytes))


@given(TEXTS, TEXTS)
def test_the_pairs_are_those_of_the_whole_table_whichever_text_is_longer(first: bytes, second: bytes) -> None:
    pairs = matched_pairs(first, second)
    assert pairs == reference(first, second)
    assert length_of(first, second) == len(pairs)


def test_long_random_texts_give_the_pairs_of_the_whole_table() -> None:
    rng = random.Random(9)
    for first_length, second_length in ((300, 120), (120, 300), (200, 200), (1, 400), (400, 1)):
        first, second = (bytes(rng.choices(b"abcdef", k=length)) for length in (first_length, second_length))
        assert matched_pairs(first, second) == reference(first, second)


def test_neighbouring_pairs_make_one_range() -> None:
    assert ranges_of([(7, 8), (6, 7), (3, 1), (2, 0)]) == [(6, 7, 7, 8), (2, 3, 0, 1)]
    assert ranges_of([]) == []


@pytest.mark.parametrize(("first", "second"), [(1, 3_000_000), (3_000_000, 1), (40, 400_000), (400_000, 40)])
def test_a_short_text_against_a_very_long_one_does_not_hang(first: int, second: int) -> None:
    rng = random.Random(3)
    client = EngineClient()
    client.session.store.put(b"a", rng.randbytes(first))
    client.session.store.put(b"b", rng.randbytes(second))
    started = time.process_time()
    for options in ((), ("len",), ("idx",)):
        assert not client.run("lcs", "a", "b", *options).startswith(b"-")
    assert time.process_time() - started < 5
    assert not client.failures


@pytest.mark.parametrize(("first", "second"), [(11_585, 11_585), (1, 1 << 26), (1 << 26, 1)])
def test_a_table_larger_than_a_value_may_be_is_refused(first: int, second: int) -> None:
    client = EngineClient()
    client.session.store.put(b"a", bytes(first))
    client.session.store.put(b"b", bytes(second))
    refusal = b"-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len\r\n"
    assert client.run("lcs", "a", "b", "len") == refusal


def test_the_largest_table_is_that_of_redis() -> None:
    client = EngineClient()
    client.server.value_max_bytes = 4 * 101 * 51
    client.session.store.put(b"a", bytes(100))
    client.session.store.put(b"b", bytes(50))
    assert client.run("lcs", "a", "b", "len") == b":50\r\n"
    client.session.store.put(b"b", bytes(51))
    assert client.run("lcs", "a", "b", "len").startswith(b"-ERR Insufficient memory")
