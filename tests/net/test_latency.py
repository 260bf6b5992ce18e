from __future__ import annotations

import random
import tracemalloc
from itertools import accumulate, pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.net.latency import BOUNDS_SECONDS, PERCENTILES, Latency

durations = st.floats(0, 200) | st.floats(0, 1e-3) | st.sampled_from(BOUNDS_SECONDS)
runs = st.lists(st.tuples(durations, st.integers(1, 50)), min_size=1, max_size=100)


def recorded(each: list[tuple[float, int]]) -> Latency:
    latency = Latency()
    for seconds, count in each:
        latency.record(seconds, count)
    return latency


def test_buckets_grow_by_less_than_a_third_from_100_ns_to_100_s() -> None:
    assert (BOUNDS_SECONDS[0], BOUNDS_SECONDS[-1]) == (1e-7, 100.0)
    ratios = [after / before for before, after in pairwise(BOUNDS_SECONDS)]
    assert min(ratios) > 1.2
    assert max(ratios) <= 1.28 + 1e-9


@given(runs)
def test_a_percentile_is_in_the_bucket_of_the_exact_one_and_not_below_it(each: list[tuple[float, int]]) -> None:
    latency = recorded(each)
    everything = sorted(seconds for seconds, count in each for _ in range(count))
    for thousandths in PERCENTILES.values():
        exact = everything[ceil(len(everything) * thousandths / 1000) - 1]
        found = latency.percentile(thousandths)
        end = next((bound for bound in BOUNDS_SECONDS if exact <= bound), everything[-1])
        assert exact <= found <= end
        assert found <= everything[-1]


@given(runs)
def test_a_run_counts_as_often_as_it_has_messages(each: list[tuple[float, int]]) -> None:
    alone = recorded([(seconds, 1) for seconds, count in each for _ in range(count)])
    together = recorded(each)
    assert together.counts == alone.counts
    assert together.count == sum(count for _, count in each)
    assert together.slowest_seconds == alone.slowest_seconds
    assert together.total_seconds == pytest.approx(alone.total_seconds)
    assert together.average_seconds == pytest.approx(alone.average_seconds)


@given(st.lists(durations, min_size=1, max_size=50))
def test_the_running_average_is_the_seeds(each: list[float]) -> None:
    average = 0.0
    for seconds in each:
        average = (average + seconds) / 2
    assert recorded([(seconds, 1) for seconds in each]).average_seconds == average


def test_the_size_does_not_grow() -> None:
    rng = random.Random(1)
    latency = Latency()
    latency.record(0.0, 1 << 40)
    latency.record(1e9, 1 << 40)
    tracemalloc.start()
    for _ in range(20_000):
        latency.record(10 ** rng.uniform(-9, 4))
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held_bytes < 16 * 1024
    assert len(latency.counts) == len(BOUNDS_SECONDS) + 1
    assert latency.count == 20_000 + (1 << 41)


def test_what_is_beyond_the_last_bound_is_told_as_the_slowest() -> None:
    assert recorded([(1.0, 1), (150.0, 3), (130.0, 1)]).percentile(500) == 150.0


def test_without_durations_all_figures_are_zero() -> None:
    latency = Latency()
    assert [latency.percentile(each) for each in PERCENTILES.values()] == [0.0] * len(PERCENTILES)
    assert (latency.count, latency.average_seconds, latency.slowest_seconds) == (0, 0.0, 0.0)


@given(runs, st.sets(st.sampled_from(BOUNDS_SECONDS)))
def test_cumulative_counts_are_those_up_to_each_bound(each: list[tuple[float, int]], chosen: set[float]) -> None:
    latency = recorded(each)
    bounds = tuple(sorted(chosen))
    exact = dict(zip(BOUNDS_SECONDS, accumulate(latency.counts), strict=False))
    assert latency.cumulative(bounds) == [exact[bound] for bound in bounds]
    assert latency.cumulative(bounds) == [sum(count for seconds, count in each if seconds <= bound) for bound in bounds]


@pytest.mark.parametrize("count", [1, 3])
def test_a_clock_that_is_set_back_does_not_spoil_the_figures(count: int) -> None:
    latency = recorded([(1.0, 1), (-3600.0, count), (1.0, 1)])
    assert (latency.count, latency.total_seconds, latency.slowest_seconds) == (2 + count, 2.0, 1.0)
    assert latency.average_seconds == (0.5 * 0.5**count + 1.0) / 2
