"""What the leader sees to in stores of level raft: it lets time pass where keys are due, and proposes what is evicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.task import LoopingCall

from hypercache.cluster.batches import batch_entry, encode_unit
from hypercache.errors import HyperCacheError
from hypercache.limits import EXPIRY_TICK_SECONDS, RAFT_EVICTION_BATCH_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from hypercache.cluster.raft_stores import RaftStores
    from hypercache.store import Store


class LeadingLog(Protocol):
    """What this needs of `hypercache.consensus.driver.Consensus`."""

    @property
    def leads(self) -> bool:
        """Whether this node leads."""
        ...

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose an entry; fires with its answer."""
        ...


class RaftUpkeep:
    """Proposes on the leader what no client asks for; one entry at a time.

    Args:
        log: the log.
        stores: the stores.
        clock: the reactor.
        wall: returns Unix seconds.
    """

    def __init__(self, log: LeadingLog, stores: RaftStores, clock: Any, wall: Callable[[], float]) -> None:
        self._log = log
        self._stores = stores
        self._wall = wall
        self._proposed = False
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin to look."""
        self._loop.start(EXPIRY_TICK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Propose what is due, where this node leads and has no answer to wait for."""
        if self._proposed or not self._log.leads:
            return
        units = [
            encode_unit(number, 2, [[b"DEL", *victims]])
            for number, store in self._stores.over_bound()
            if (victims := _victims(store))
        ]
        if units or self._stores.due(int(self._wall() * 1000)):
            self._proposed = True
            self._log.propose(batch_entry(units)).addErrback(_not_now).addBoth(self._answered)

    def _answered(self, _: Any) -> None:
        self._proposed = False


def _victims(store: Store) -> list[bytes]:
    """Return about as many keys as bring a store back to its bound; none where nothing may go."""
    used = store.used_bytes()
    share = (used - store.maxmemory) * len(store) // used
    return store.victims(min(RAFT_EVICTION_BATCH_COUNT, share + 1))


def _not_now(failure: Failure) -> None:
    failure.trap(HyperCacheError)
