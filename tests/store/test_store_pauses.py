"""No call stops the loop for long, whatever the number of keys; measured in processor time of this thread."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import pytest

from hypercache.store.access import FIRST_CELLS, AccessClock, FrequencySketch
from tests.store.stores import NOW, make, make_keyspace, never, store_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.store import Store

PAUSE_MAX_SECONDS = 0.020
TEND_SECONDS = 0.005
KEYS = 1_000_000
BATCH = 50


class Stopwatch:
    """The longest time that a call took, by what it did."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}

    def time(self, what: str, call: Callable[..., object], *arguments: object) -> None:
        started = time.thread_time()
        call(*arguments)
        self.longest[what] = max(self.longest.get(what, 0.0), time.thread_time() - started)

    def tend(self, what: str, store: Store, done: Callable[[], bool]) -> None:
        for _ in range(5000):
            if done():
                return
            self.time(what, store.tend, past(time.thread_time() + TEND_SECONDS))
        pytest.fail(f"{what} does not end")


def past(end: float) -> Callable[[], bool]:
    return lambda: time.thread_time() > end


def write(store: Store, name: bytes, first: int, deadline: int = 0) -> None:
    for number in range(first, first + BATCH):
        store.put(b"%s%012d" % (name, number), bytes(100), deadline)


def evict(store: Store) -> None:
    for _ in range(BATCH):
        store.evict_one()


def life_of_a_million_keys() -> dict[str, float]:
    watch = Stopwatch()
    store = make("lru", replicating=True)
    journal = store.dirty
    assert journal is not None
    for first in range(0, KEYS, BATCH):
        watch.time("write", write, store, b"k", first)
        journal.clear()
    assert len(store) == KEYS
    for _ in range(2000):
        watch.time("evict", evict, store)
    store.advance(NOW + 1)
    for first in range(0, KEYS, BATCH):
        watch.time("write with a deadline", write, store, b"k", first, NOW + 500 + first % 1000)
        journal.clear()
    store.advance(NOW + 5000)
    watch.tend("expire", store, lambda: not len(store))
    # A million tombstones by now.
    for first in range(0, KEYS // 4, BATCH):
        watch.time("write over tombstones", write, store, b"k", first)
        journal.clear()
    flushed = store.next_stamp()
    write(store, b"late", 0)
    watch.time("flush from elsewhere", store.apply_flush, flushed)
    watch.tend("free", store, lambda: not store.release_one())
    assert len(store) == BATCH
    watch.time("flush", store.flush)
    watch.tend("free", store, lambda: not store.release_one())
    return watch.longest


@pytest.mark.parametrize("frozen", [False, True], ids=["collected", "frozen"])
def test_nothing_takes_20_ms_while_a_million_keys_are_written_evicted_expired_and_flushed(frozen: bool) -> None:
    assert gc.isenabled()
    gc.collect()
    if frozen:
        gc.freeze()
    try:
        # A machine that others use can take the processor away in the midst of anything: the better of two runs counts.
        longest = life_of_a_million_keys()
        if max(longest.values()) >= PAUSE_MAX_SECONDS:
            longest = life_of_a_million_keys()
    finally:
        gc.unfreeze()
    assert max(longest.values()) < PAUSE_MAX_SECONDS, longest


def test_records_are_nothing_to_the_garbage_collector() -> None:
    store = make("lfu", replicating=True)
    gc.collect()
    before = len(gc.get_objects())
    for number in range(50_000):
        store.put(b"%d" % number, bytes(20), NOW + 5 if number % 2 else 0)
    gc.collect()
    assert len(gc.get_objects()) - before < 1000


def test_a_bound_that_is_lowered_far_stops_no_write() -> None:
    keyspace = make_keyspace("lru")
    store = store_of(keyspace, 0)
    for number in range(100_000):
        store.put(b"%d" % number, bytes(100))
    keyspace.maxmemory = keyspace.used_bytes() // 5
    watch = Stopwatch()
    for number in range(200):
        keyspace.advance(NOW + number)
        watch.time("make room", keyspace.make_room, store)
    assert keyspace.used_bytes() <= keyspace.maxmemory
    assert watch.longest["make room"] < PAUSE_MAX_SECONDS


def test_an_array_of_access_times_grows_in_small_steps_and_keeps_what_it_holds() -> None:
    clock = AccessClock()
    for cell in range(FIRST_CELLS):
        clock.cells[cell] = cell
    steps = 1
    length = len(clock.cells)
    while not clock.grow():
        assert len(clock.cells) - length <= 4096
        assert clock.mask == FIRST_CELLS - 1
        length = len(clock.cells)
        steps += 1
    assert steps == FIRST_CELLS // 4096
    assert clock.mask == 2 * FIRST_CELLS - 1
    assert clock.cells.tolist() == [*range(FIRST_CELLS), *range(FIRST_CELLS)]


def test_counters_of_uses_survive_the_growth_of_their_array() -> None:
    store = make("lfu")
    for number in range(100):
        store.put(b"hot%d" % number, b"v")
    for _ in range(300):
        for number in range(100):
            store.get(b"hot%d" % number)
    before = [store.frequency(b"hot%d" % number) or 0 for number in range(100)]
    assert isinstance(store._frequency, FrequencySketch)
    small = store._frequency.used_bytes()
    for number in range(20_000):
        store.put(b"%d" % number, b"v")
    assert store._frequency.used_bytes() >= 4 * small
    assert [store.frequency(b"hot%d" % number) or 0 for number in range(100)] >= before


def test_the_access_time_of_a_key_survives_the_growth_of_its_array() -> None:
    store = make("lru")
    for number in range(1000):
        store.put(b"%d" % number, b"v")
    store.advance(NOW + 60_000)
    for number in range(1000, 50_000):
        store.put(b"%d" % number, b"v")
    idle = [store.idle_seconds(b"%d" % number) for number in range(1000)]
    assert set(idle) <= {0, 59, 60}
    # A cell that it shares, or shared before the last growth, with a younger key makes it look younger.
    assert len(idle) - idle.count(0) > 350


def test_a_flush_takes_no_time_and_the_memory_comes_back_in_steps() -> None:
    store = make()
    for number in range(100_000):
        store.put(b"%d" % number, b"v")
    watch = Stopwatch()
    watch.time("flush", store.flush)
    assert watch.longest["flush"] < PAUSE_MAX_SECONDS
    assert len(store) == 0
    calls = 0

    def at_the_tenth() -> bool:
        nonlocal calls
        calls += 1
        return calls == 10

    store.tend(at_the_tenth)
    assert calls == 10
    store.tend(never)
    assert calls == 10
