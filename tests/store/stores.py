"""Stores for the tests."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypercache.store import STAMP_STEP, Keyspace, Store, built_in_policies

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_800_000_000_000
POLICIES = built_in_policies()


def make(policy: str = "none", *, replicating: bool = False, seed: int = 1, **options: int) -> Store:
    store = Store("s", origin=7, rng=random.Random(seed), policy=POLICIES[policy], **options)
    store.advance(NOW)
    if replicating:
        store.dirty = {}
    return store


def make_keyspace(policy: str = "none") -> Keyspace:
    keyspace = Keyspace(origin=1, rng=random.Random(1), policy=POLICIES[policy])
    keyspace.advance(NOW)
    return keyspace


def store_of(keyspace: Keyspace, index: int) -> Store:
    store = keyspace.by_index(index)
    assert store is not None
    return store


def stamp_of(store: Store, key: bytes) -> int:
    record = store.record(key)
    assert record is not None
    return record.stamp


def stamp_at(steps: int, origin: int = 3) -> int:
    """Return a stamp of another node."""
    return (NOW << 80) + steps * STAMP_STEP + origin


def never() -> bool:
    return False


def after(calls: int) -> Callable[[], bool]:
    """Return an ``out_of_time`` that says yes from that call on."""
    left = iter([False] * (calls - 1))
    return lambda: next(left, True)
