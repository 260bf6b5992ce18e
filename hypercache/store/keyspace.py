"""The named stores of a node, and the memory that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypercache.limits import (
    DATABASES_COUNT,
    EVICTION_SAMPLES_COUNT,
    EVICTION_STEPS_PER_MS_COUNT,
    STORES_MAX_COUNT,
    TOMBSTONES_MAX_COUNT,
)
from hypercache.store.eviction import NO_EVICTION, EvictionPolicy
from hypercache.store.store import Store

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

DEFAULT_STORE: Final = "default"

_NODE: Final = ""
_RELEASE_STEPS: Final = 16
"""Freeing a flushed shard of a large store takes as long as so many evictions."""

_LOGGED_SLACK_SHARE: Final = 16
"""A store of a log whose leader evicts may exceed its bound by one in so many bytes until that is applied."""


def store_name(index: int) -> str:
    """Return the name of the store that ``SELECT index`` means."""
    return f"db{index}" if index else DEFAULT_STORE


class Keyspace:
    """All stores of a node.

    Args:
        origin: the node's id, for stamps.
        rng: for eviction's samples.
        maxmemory: the bound of all stores together, in bytes; 0 for none.
        policy: the eviction policy of every store.
        samples: how many keys an eviction looks at.
        databases: how many numbers SELECT knows.
        tombstones_max: how many deleted keys each store remembers.
        tombstone_ttl_ms: for how long, in milliseconds.

    Attributes:
        stores: by name; those that this node keeps by itself.
        logged: by name, the stores that a log changes (`Store.log`): they have their own time, and nothing of them goes unasked.
        now_ms: the time of the current batch.
        peak_bytes: the highest use of memory seen when asked.
    """

    def __init__(
        self,
        *,
        origin: int,
        rng: random.Random,
        maxmemory: int = 0,
        policy: EvictionPolicy = NO_EVICTION,
        samples: int = EVICTION_SAMPLES_COUNT,
        databases: int = DATABASES_COUNT,
        tombstones_max: int = TOMBSTONES_MAX_COUNT,
        tombstone_ttl_ms: int = 24 * 3600 * 1000,
    ) -> None:
        self.stores: dict[str, Store] = {}
        self.logged: Mapping[str, Store] = {}
        self.databases = databases
        self.maxmemory = maxmemory
        self.now_ms = 0
        self.peak_bytes = 0
        self._origin = origin
        self._rng = rng
        self._policy = policy
        self._samples = samples
        self._tombstones_max = tombstones_max
        self._tombstone_ttl_ms = tombstone_ttl_ms
        self._before_flush: Callable[[Store], None] | None = None
        # Stores that keep their policy whatever that of the others is.
        self._own_policy: set[str] = set()
        self._first = 0
        self._steps_left = EVICTION_STEPS_PER_MS_COUNT
        # While a bound is over: the least that was used since, above which writes do not bring it. By store; `_NODE` for all.
        self._ceilings: dict[str, int] = {}
        self.by_name(DEFAULT_STORE, create=True)

    def by_name(self, name: str, *, create: bool = False) -> Store | None:
        """Return a store that no log changes.

        With ``create`` an unknown one is made, while there are fewer than `STORES_MAX_COUNT` and no other store has the name.
        """
        store = self.stores.get(name)
        if store is None and create and len(self.stores) < STORES_MAX_COUNT and name not in self.logged:
            store = Store(
                name,
                origin=self._origin,
                rng=self._rng,
                policy=self._policy,
                samples=self._samples,
                tombstones_max=self._tombstones_max,
                tombstone_ttl_ms=self._tombstone_ttl_ms,
            )
            store.advance(self.now_ms)
            self._start_journal(store)
            self.stores[name] = store
        return store

    def named(self, name: str) -> Store | None:
        """Return a store of any kind by its name, None where there is none."""
        store = self.stores.get(name)
        if store is None:
            return self.logged.get(name)
        return store if store.log is None else None

    def define(self, name: str, *, maxmemory: int, policy: EvictionPolicy, ttl_ms: int, floor: int = 0) -> bool:
        """Have a store with these properties; one that is there already takes them on.

        Args:
            name: its name.
            maxmemory: its own bound, in bytes; 0 for none but the node's.
            policy: its eviction policy.
            ttl_ms: how long a key lives that is written without a deadline, in milliseconds; 0 for ever.
            floor: records at or under this stamp are those of an earlier store of the name (consistency.md, rule 11).

        Returns:
            False where there are too many stores.
        """
        store = self.by_name(name, create=True)
        if store is None:
            return False
        store.log = None
        store.apply_flush(floor)
        self._own_policy.add(name)
        store.maxmemory, store.ttl_ms = maxmemory, ttl_ms
        if store.policy is not policy:
            store.policy = policy
        return True

    def drop(self, name: str, log: Any) -> None:
        """Empty a store and hide it; who still has it selected is answered by ``log``.

        It stays as a shell, for members that have not dropped theirs yet send of it.
        """
        store = self.stores.get(name)
        if store is not None:
            store.log = log
            store.discard_all()
            self._ceilings.pop(name, None)

    def by_index(self, index: int) -> Store | None:
        """Return the store that ``SELECT index`` means, None where the number is out of range."""
        if not 0 <= index < self.databases:
            return None
        return self.by_name(store_name(index), create=True)

    def index_of(self, store: Store) -> int:
        """Return the number under which SELECT knows a store, -1 where it has none."""
        if store.name == DEFAULT_STORE:
            return 0
        digits = store.name.removeprefix("db")
        return int(digits) if digits.isdecimal() and store_name(int(digits)) == store.name else -1

    def all_stores(self) -> list[Store]:
        """Return the stores there are, those of a log too."""
        return [*self.stores.values(), *self.logged.values()]

    def start_journals(self, before_flush: Callable[[Store], None]) -> None:
        """Have every store, present and future, note which keys change, and tell ``before_flush`` before it is flushed."""
        self._before_flush = before_flush
        for store in self.stores.values():
            self._start_journal(store)

    def _start_journal(self, store: Store) -> None:
        if self._before_flush is not None and store.dirty is None:
            store.dirty = {}
            store.before_flush = self._before_flush

    def advance(self, now_ms: int) -> None:
        """Set the time of what follows, Unix milliseconds."""
        self.now_ms = now_ms
        self._steps_left = EVICTION_STEPS_PER_MS_COUNT
        for store in self.stores.values():
            store.advance(now_ms)

    @property
    def policy(self) -> EvictionPolicy:
        """The eviction policy of every store that was not made with one."""
        return self._policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        for name, store in self.stores.items():
            if name not in self._own_policy:
                store.policy = policy

    @property
    def samples(self) -> int:
        """How many keys an eviction looks at."""
        return self._samples

    @samples.setter
    def samples(self, samples: int) -> None:
        self._samples = samples
        for store in self.stores.values():
            store.samples = samples

    def used_bytes(self) -> int:
        """Return about what all stores take of memory, in bytes."""
        used = 0
        for store in self.stores.values():
            used += store.used_bytes()
        if self.logged:
            used += sum(map(Store.used_bytes, self.logged.values()))
        if used > self.peak_bytes:
            self.peak_bytes = used
        return used

    def make_room(self, store: Store) -> bool:
        """Evict until the store's own bound and the node's hold.

        A bound that was lowered does not stop the node: what goes in one millisecond of the clock is limited. Then writes go on, as
        in Redis, each evicting no more than came in, while `tend` does the rest.

        Returns:
            False where a bound does not hold and nothing may go.
        """
        if store.maxmemory:
            if store.log is not None:
                slack = store.maxmemory // _LOGGED_SLACK_SHARE if store.policy.evicts else 0
                if store.used_bytes() > store.maxmemory + slack:
                    return False
            elif not self._hold(store.name, store, lambda: self._evict(store)):
                return False
        return not self.maxmemory or self._hold(_NODE, self, self._evict_from_any)

    def tend(self, out_of_time: Callable[[], bool]) -> None:
        """Do a bounded share of the background work of every store, another one first each time, and evict what is over a bound."""
        for store in self.logged.values():
            while store.release_one():
                if out_of_time():
                    return
        stores = list(self.stores.values())
        self._first = first = (self._first + 1) % len(stores)
        for store in stores[first:] + stores[:first]:
            if store.log is not None and store.count:
                store.discard_all()
            store.tend(out_of_time)
            while store.maxmemory and store.used_bytes() > store.maxmemory and self._evict(store) and not out_of_time():
                pass
            if out_of_time():
                return
        while self.maxmemory and self.used_bytes() > self.maxmemory and self._evict_from_any() and not out_of_time():
            pass

    def _hold(self, name: str, whose: Keyspace | Store, evict: Callable[[], bool]) -> bool:
        bound = whose.maxmemory
        used = whose.used_bytes()
        if used <= bound:
            self._ceilings.pop(name, None)
            return True
        while used > bound:
            if self._steps_left <= 0 and used <= self._ceilings.setdefault(name, used):
                self._ceilings[name] = used
                return True
            if not evict():
                return False
            used = whose.used_bytes()
        return True

    def _evict(self, store: Store) -> bool:
        if store.release_one():
            self._steps_left -= _RELEASE_STEPS
            return True
        if store.evict_one():
            self._steps_left -= 1
            return True
        return False

    def _evict_from_any(self) -> bool:
        # The fullest store gives; where nothing of it may go (no key expires, say), any other.
        stores: Iterable[Store] = self.stores.values()
        if len(self.stores) > 1:
            stores = sorted(stores, key=Store.used_bytes, reverse=True)
        return any(self._evict(store) for store in stores)
