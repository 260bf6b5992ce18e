"""Walking through a store: scans and random keys."""

from __future__ import annotations

import random

import pytest

from tests.store.stores import NOW, make


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_scan_returns_every_key_that_stays_although_others_come_and_go(count: int) -> None:
    store = make()
    rng = random.Random(3)
    stay = {b"stay%d" % number for number in range(3000)}
    for key in stay:
        store.put(key, b"v")
    cursor, seen = 0, []
    while True:
        cursor, found = store.scan(cursor, count)
        seen += found
        for _ in range(5):
            store.put(b"come%d" % rng.randrange(1000), b"v", NOW + 5 if rng.random() < 0.5 else 0)
            store.delete(b"come%d" % rng.randrange(1000))
        if not cursor:
            break
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("cursor", [1 << 63, (1 << 64) - 1, 1 << 200, -1, 2048])
def test_a_scan_from_a_cursor_that_was_never_given_ends(cursor: int) -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.scan(cursor, 10) == (0, [])


def test_a_scan_returns_about_as_many_keys_as_were_asked_for() -> None:
    store = make()
    for number in range(100_000):
        store.put(b"%d" % number, b"v")
    cursor, sizes = 0, []
    while True:
        cursor, found = store.scan(cursor, 10)
        sizes.append(len(found))
        if not cursor:
            break
    assert sum(sizes) == 100_000
    assert max(sizes) < 150


def test_a_scan_of_a_sparse_store_does_not_come_back_with_nothing_until_its_end() -> None:
    store = make()
    for number in range(5):
        store.put(b"%d" % number, b"v")
    cursor, found = store.scan(0, 2)
    assert len(found) >= 2
    assert len(found) + len(store.scan(cursor, 100)[1]) == 5
    store.flush()
    assert store.scan(0, 1) == (0, [])


def test_neither_keys_nor_scan_returns_what_has_expired() -> None:
    store = make()
    for number in range(100):
        store.put(b"%d" % number, b"v", NOW + 5 if number % 2 else 0)
        store.put(b"all%d" % number, b"v", NOW + 10 + number % 2)
    store.advance(NOW + 10)
    live = {b"%d" % number for number in range(0, 100, 2)} | {b"all%d" % number for number in range(1, 100, 2)}
    assert set(store.keys()) == live
    assert set(store.scan(0, 1000)[1]) == live


@pytest.mark.parametrize("keys", [10, 5000])
def test_random_keys_are_any_keys_with_about_the_same_chance(keys: int) -> None:
    store = make()
    assert store.random_key() is None
    for number in range(keys):
        store.put(b"%d" % number, b"v")
    draws = [store.random_key() for _ in range(keys * 20)]
    times = [draws.count(b"%d" % number) for number in range(10)]
    assert min(times) >= 2
    assert sum(times) / 10 < 60


def test_a_random_key_is_found_among_many_that_have_expired() -> None:
    store = make()
    for number in range(20_000):
        store.put(b"%d" % number, b"v", NOW + 5)
    store.put(b"live", b"v")
    store.advance(NOW + 5)
    assert store.random_key() == b"live"
    # It does not expire them all one by one to find it.
    assert store.expired <= 100
    store.delete(b"live")
    assert store.random_key() is None
