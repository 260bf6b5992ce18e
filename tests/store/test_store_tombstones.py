"""Deleted keys are remembered, in bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.store.tombstones import Tombstones
from tests.store.stores import NOW, after, make, never, stamp_at


def test_a_deletion_leaves_a_tombstone_only_while_somebody_follows() -> None:
    alone, followed = make(), make(replicating=True)
    for store in (alone, followed):
        store.put(b"k", b"v")
        store.put(b"e", b"v", NOW + 1)
        store.delete(b"k")
        store.advance(NOW + 1)
        store.get(b"e")
    assert not alone.tombstone(b"k")
    assert not alone.tombstone(b"e")
    assert followed.tombstone(b"k")
    assert followed.tombstone(b"e")


def test_tombstones_are_bounded_and_the_oldest_go_first() -> None:
    store = make(replicating=True, tombstones_max=10)
    for number in range(50):
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    assert [number for number in range(50) if store.tombstone(b"%d" % number)] == list(range(40, 50))


def test_tombstones_go_with_time_and_not_before() -> None:
    store = make(replicating=True, tombstone_ttl_ms=1000)
    for number in range(50):
        store.advance(NOW + number)
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    store.advance(NOW + 1020)
    store.tend(never)
    left = [number for number in range(50) if store.tombstone(b"%d" % number)]
    assert left == list(range(20, 50))
    store.advance(NOW + 5000)
    store.tend(never)
    assert not any(store.tombstone(b"%d" % number) for number in range(50))


def test_one_key_that_is_deleted_again_and_again_pushes_out_no_other_and_takes_no_more() -> None:
    store = make(replicating=True, tombstones_max=100)
    for number in range(50):
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    used = store.used_bytes()
    for _ in range(5000):
        store.put(b"churn", b"v")
        store.delete(b"churn")
    assert all(store.tombstone(b"%d" % number) for number in range(50))
    assert store.used_bytes() < used + 30_000


def test_collecting_stops_when_time_is_up_even_where_all_are_stale() -> None:
    buried = Tombstones(10_000, 1000)
    for number in range(1000):
        buried.bury(b"%d" % number, stamp_at(number))
    for number in range(1000):
        buried.discard(b"%d" % number)
    calls = 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return False

    buried.collect(stamp_at(2000), count)
    assert 10 < calls < 20
    for number in range(1000):
        buried.bury(b"%d" % number, stamp_at(number))
    buried.collect(stamp_at(2000), after(2))
    assert 800 < buried.count < 1000


def test_tombstones_under_the_floor_are_forgotten() -> None:
    store = make(replicating=True)
    for number in range(1000):
        store.put(b"%d" % number, b"v")
        store.delete(b"%d" % number)
    used = store.used_bytes()
    store.flush()
    assert not any(store.tombstone(b"%d" % number) for number in range(1000))
    store.tend(never)
    assert store.used_bytes() < used - 100_000


def test_nothing_is_held_for_keys_that_were_all_written_again() -> None:
    buried = Tombstones(10_000, 1000)
    for number in range(1000):
        buried.bury(b"%d" % number, stamp_at(number))
        buried.discard(b"%d" % number)
    buried.collect(0, never)
    assert (buried.count, buried.used_bytes) == (0, 0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["bury", "discard", "collect"]), st.integers(0, 30)), max_size=200), st.integers(0, 12))
def test_tombstones_are_a_dictionary_of_the_latest_burials(steps: list[tuple[str, int]], limit: int) -> None:
    buried = Tombstones(limit, 1000)
    model: dict[bytes, int] = {}
    for number, (action, which) in enumerate(steps):
        key = b"%d" % which
        if action == "bury":
            buried.bury(key, stamp_at(number))
            model.pop(key, None)
            model[key] = stamp_at(number)
            while len(model) > limit:
                del model[next(iter(model))]
        elif action == "discard":
            buried.discard(key)
            model.pop(key, None)
        else:
            until = stamp_at(number - which)
            buried.collect(until, never)
            model = {key: stamp for key, stamp in model.items() if stamp > until}
        assert {key: buried.get(key) for key in model} == model
        assert buried.count == len(model)
    buried.collect(stamp_at(10**6), never)
    assert (buried.count, buried.used_bytes) == (0, 0)
