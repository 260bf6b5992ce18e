"""The token bucket: exact arithmetic, against a reference in fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.layers.bucket import NANOSECONDS, TokenBucket

rates = st.sampled_from([0.1, 0.3, 1.0, 2.5, 7.0, 333.0, 1000.0, 12345.678, 1e6, 1e-3])


@given(
    rates,
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 5_000_000), st.integers(0, 60)), max_size=60),
)
def test_it_holds_what_fractions_say(rate: float, burst: int, steps: list[tuple[int, int]]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    exact, level, now = Fraction(str(rate)), Fraction(burst), 0
    for microseconds, tokens in steps:
        now += microseconds
        level = min(Fraction(burst), level + exact * Fraction(microseconds, 10**6))
        bucket.refill(now / 10**6)
        wanted = level >= tokens
        assert bucket.take(tokens) == wanted
        if wanted:
            level -= tokens
        elif tokens <= burst:
            nanoseconds = bucket.wait(tokens)
            missing = tokens - level
            assert exact * Fraction(nanoseconds, NANOSECONDS) >= missing
            assert exact * Fraction(nanoseconds - 1, NANOSECONDS) < missing


def test_to_ask_often_costs_nothing() -> None:
    """The seed's bucket, asked each millisecond, never gets its token."""
    bucket = TokenBucket(10.0, 5, 0.0)
    assert bucket.take(5)
    taken = []
    for milliseconds in range(1, 1001):
        bucket.refill(milliseconds / 1000)
        if bucket.take(1):
            taken.append(milliseconds)
    assert taken == list(range(100, 1001, 100))


def test_it_starts_full_and_saves_up_no_more_than_the_burst() -> None:
    bucket = TokenBucket(1000.0, 7, 50.0)
    for now in (50.0, 1e6):
        bucket.refill(now)
        assert not bucket.take(8)
        assert bucket.take(7)
        assert not bucket.take(1)
        assert bucket.take(0)
    assert bucket.wait(0) == 0


def test_a_rate_is_the_number_that_was_written() -> None:
    """As a float 0.3 is a little less."""
    bucket = TokenBucket(0.3, 3, 0.0)
    assert bucket.take(3)
    bucket.refill(10.0)
    assert bucket.take(3)


@pytest.mark.parametrize("start", [0.0, 1795602300.25])
def test_a_clock_that_is_set_back_neither_brings_nor_takes(start: float) -> None:
    bucket = TokenBucket(1.0, 10, start)
    assert bucket.take(4)
    bucket.refill(start - 3600)
    assert bucket.take(6)
    assert not bucket.take(1)
    bucket.refill(start - 3599)
    assert bucket.take(1)
    assert not bucket.take(1)
