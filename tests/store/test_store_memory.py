"""What a store says that it takes of memory, and what it really takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store.stores import NOW, make, never

MEASURE = """
import random, sys, psutil
sys.path.insert(0, {root!r})
from hypercache.store import Store, built_in_policies
process = psutil.Process()
store = Store("s", origin=1 << 63, rng=random.Random(1), policy=built_in_policies()[{policy!r}])
store.advance(1_800_000_000_000)
before, counted = process.memory_info().rss, store.used_bytes()
{body}
print((store.used_bytes() - counted) / (process.memory_info().rss - before), (process.memory_info().rss - before) / {count})
"""
FILL = """
for number in range({count}):
    store.put(b"%0{key}d" % number, bytes({value}), {deadline})
"""
DELETE = """
store.dirty = {}
for number in range(300_000):
    store.put(b"%016d" % number, b"v")
    store.delete(b"%016d" % number)
    store.dirty.clear()
"""


def measured(body: str, count: int, policy: str = "none") -> tuple[float, float]:
    """Return how much of what a process grew by was accounted, and by how much a key it grew, in bytes."""
    script = MEASURE.format(root=str(Path(__file__).parents[2]), body=body, count=count, policy=policy)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ratio, each = map(float, run.stdout.split())
    return ratio, each


@pytest.mark.parametrize(
    ("count", "key", "value", "deadline", "policy"),
    [
        pytest.param(20_000, 16, 10_000, "0", "none", id="large"),
        pytest.param(400_000, 8, 4, "0", "none", id="tiny"),
        pytest.param(300_000, 16, 100, "1_900_000_000_000 + number", "none", id="expiring"),
        pytest.param(300_000, 16, 100, "0", "lfu", id="counted"),
        pytest.param(100_000, 16, 600, "0", "none", id="above what the allocator calls small"),
    ],
)
def test_memory_is_accounted_within_ten_per_cent(count: int, key: int, value: int, deadline: str, policy: str) -> None:
    ratio, _ = measured(FILL.format(count=count, key=key, value=value, deadline=deadline), count, policy)
    assert 0.9 < ratio < 1.1


def test_a_million_keys_of_16_bytes_with_100_take_less_than_2_5_times_what_redis_takes() -> None:
    ratio, each = measured(FILL.format(count=1_000_000, key=16, value=100, deadline="0"), 1_000_000)
    assert 0.9 < ratio < 1.1
    # redis-server 7 takes 190 bytes for each.
    assert each < 400


def test_tombstones_are_accounted_within_ten_per_cent() -> None:
    ratio, _ = measured(DELETE, 300_000)
    assert 0.9 < ratio < 1.1


def test_what_is_deleted_is_no_longer_accounted() -> None:
    store = make("lfu")
    empty = store.used_bytes()
    for number in range(1000):
        store.put(b"%d" % number, bytes(number), NOW + 50 if number % 2 else 0)
    for number in range(1000):
        assert (store.memory_of(b"%d" % number) or 0) > number
        store.delete(b"%d" % number)
    assert store.used_bytes() == empty


def test_what_a_flush_took_is_accounted_until_it_is_freed() -> None:
    store = make()
    empty = store.used_bytes()
    for number in range(5000):
        store.put(b"%d" % number, bytes(100))
    full = store.used_bytes()
    store.flush()
    assert store.used_bytes() > full * 0.9
    calls = 0

    def now_and_then() -> bool:
        nonlocal calls
        calls += 1
        return calls == 900

    store.tend(now_and_then)
    assert full * 0.4 < store.used_bytes() < full * 0.7
    store.tend(never)
    assert store.used_bytes() == empty


def test_a_small_store_is_small() -> None:
    assert make().used_bytes() < 200_000
