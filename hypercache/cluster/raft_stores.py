"""The stores of level raft, as the log makes them: the same entries give every member the same records.

Time passes by entries alone: a key expires when an entry's time has come to its deadline, and is gone for everybody from that entry
on. What reads do here, when memory is full, and which hash seed a process has changes nothing.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.logger import Logger

from hypercache.cluster.applier import Applier
from hypercache.cluster.batches import decode_batch, encode_answer
from hypercache.cluster.pieces import END, frame, frames
from hypercache.control.state import Level
from hypercache.errors import ConfigurationError, MalformedMessageError
from hypercache.limits import RAFT_SNAPSHOT_PIECE_BYTES
from hypercache.resp.replies import error
from hypercache.store import Store, built_in_policies, policy_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hypercache.control.state import StoreDefinition
    from hypercache.resp.contracts import StoreLog
    from hypercache.store import EvictionPolicy
    from hypercache.store.shards import Frozen

_log = Logger()
_NO_STORE: Final = error("ERR no such store")
_RECORD_BYTES: Final = 16
"""What a record takes in a snapshot besides its key and value, at most."""

_Row = tuple[bytes, bytes, int]
_encode: Final = msgspec.msgpack.Encoder().encode
_head: Final = msgspec.msgpack.Decoder(int)
_rows: Final = msgspec.msgpack.Decoder(tuple[int, list[_Row]])


class RefusingLog:
    """Stands for the log of a store that is not to be had: every command on data is refused.

    Args:
        line: the error line.
    """

    def __init__(self, line: str) -> None:
        self._line = line

    def refuses(self, entry: Any, request: Any) -> str:
        """Refuse."""
        return self._line

    def write(self, resp: int, requests: Any, done: Any) -> None:
        """Never called: all was refused."""
        raise AssertionError("a write was refused before")

    def read(self, done: Any) -> None:
        """Never called: all was refused."""
        raise AssertionError("a read was refused before")


def dropped_log(name: str) -> RefusingLog:
    """Return what answers those who still have a dropped store selected."""
    return RefusingLog(f"ERR no such store '{name}': it was dropped")


_NO_GATEWAY: Final = RefusingLog("CLUSTERDOWN this node takes no part in the Raft group")


class LoadedStores(msgspec.Struct):
    """What a snapshot says of the stores: log time, and the stores by number."""

    now_ms: int
    stores: dict[int, Store]


class RaftStores:
    """The state of all stores of level raft.

    Args:
        policies: the eviction policies by name.
        report_failure: told the command's name and the exception where a command failed by a bug.

    Attributes:
        stores: by name; the `Keyspace` has this very mapping as `logged`.
        now_ms: log time, Unix milliseconds.
        writes: the names of the commands that may be in an entry.
    """

    def __init__(
        self,
        policies: Mapping[str, EvictionPolicy] | None = None,
        report_failure: Callable[[str, Exception], None] = lambda _, failure: None,
    ) -> None:
        self.stores: dict[str, Store] = {}
        self.now_ms = 0
        self._by_number: dict[int, Store] = {}
        self._policies = built_in_policies() if policies is None else policies
        self._applier = Applier(report_failure)
        self._open: Callable[[int], StoreLog] | None = None
        self.writes = self._applier.writes

    # Which stores there are

    def open(self, log_of: Callable[[int], StoreLog]) -> None:
        """Let clients in.

        Args:
            log_of: returns what their commands go through, by a store's number.
        """
        self._open = log_of
        for number, store in self._by_number.items():
            store.log = log_of(number)

    def define(self, definitions: Mapping[str, StoreDefinition]) -> None:
        """Have the stores that are defined, and no others; called with what an entry made of the control plane."""
        wanted = {each.created_index: each for each in definitions.values() if each.level == Level.RAFT}
        for number in self._by_number.keys() - wanted.keys():
            self._drop(number)
        for number in sorted(wanted.keys() - self._by_number.keys()):
            self._add(number, self._make(wanted[number]))

    def _make(self, definition: StoreDefinition) -> Store:
        try:
            policy = policy_named(definition.eviction, self._policies)
        except ConfigurationError:
            _log.warn("store {name}: {eviction} is no policy here", name=definition.name, eviction=definition.eviction)
            policy = self._policies["none"]
        # Samples are this node's own affair; nothing else of a store draws.
        rng = random.Random(definition.created_index)
        store = Store(definition.name, origin=0, rng=rng, policy=policy, maxmemory=definition.maxmemory, ttl_ms=definition.ttl_ms)
        store.advance(self.now_ms)
        return store

    def _add(self, number: int, store: Store) -> None:
        store.log = _NO_GATEWAY if self._open is None else self._open(number)
        self._by_number[number] = self.stores[store.name] = store

    def _drop(self, number: int) -> None:
        store = self._by_number.pop(number)
        store.log = dropped_log(store.name)
        store.discard_all()
        if self.stores.get(store.name) is store:
            del self.stores[store.name]

    # Entries

    def advance(self, when_ms: int) -> None:
        """Let the time of an entry come; every key that is due by then is gone.

        Args:
            when_ms: Unix milliseconds; time never goes back.
        """
        if when_ms > self.now_ms:
            self.now_ms = when_ms
            for store in self._by_number.values():
                if store.soonest <= when_ms:
                    store.advance(when_ms)
                    store.expire_due()

    def apply(self, when_ms: int, chance: int, batch: bytes) -> bytes:
        """Apply an entry; return its answer (`hypercache.cluster.batches`), empty where the entry holds no batch.

        Args:
            when_ms: the leader's time, Unix milliseconds.
            chance: the leader's 64 random bits.
            batch: what the entry holds.
        """
        self.advance(when_ms)
        now = self.now_ms
        try:
            units = decode_batch(batch)
        except MalformedMessageError as fault:
            _log.error("{fault}", fault=fault)
            return b""
        applier = self._applier
        applier.begin(chance)
        answers = []
        for number, resp, requests in units:
            store = self._by_number.get(number)
            if store is None:
                answers.append([_NO_STORE] * len(requests))
                continue
            if store.now_ms != now:
                store.advance(now)
            answers.append(applier.run(store, resp, requests))
            if store.soonest <= now:
                # A deadline that lay in the past already.
                store.expire_due()
        return encode_answer(answers)

    # What the leader sees to

    def due(self, now_ms: int) -> bool:
        """Whether a key would expire if an entry of that time, Unix milliseconds, came now."""
        return any(store.soonest <= now_ms for store in self._by_number.values())

    def over_bound(self) -> list[tuple[int, Store]]:
        """Return the stores, with their numbers, that exceed their bound by this node's measure and may evict."""
        return [
            (number, store)
            for number, store in self._by_number.items()
            if store.maxmemory and store.policy.evicts and store.used_bytes() > store.maxmemory
        ]

    # Snapshots

    def freeze(self) -> Iterator[bytes]:
        """Return the state as of now in pieces, to be read later and elsewhere."""
        frozen = [(number, store.freeze()) for number, store in sorted(self._by_number.items())]
        return _pieces(self.now_ms, frozen)

    def load(self, stream: Iterable[bytes], definitions: Mapping[str, StoreDefinition]) -> LoadedStores:
        """Return what the pieces of `freeze` say; it touches nothing that is in use.

        Args:
            stream: the pieces, cut anywhere.
            definitions: the stores as the control plane of the same snapshot has them.

        Raises:
            MalformedMessageError: they are damaged.
        """
        return self.load_frames(frames(stream), definitions)

    def load_frames(self, payloads: Iterator[bytes], definitions: Mapping[str, StoreDefinition]) -> LoadedStores:
        """Do as `load`, with the payloads of the frames (`hypercache.cluster.pieces`)."""
        made = {each.created_index: self._make(each) for each in definitions.values() if each.level == Level.RAFT}
        try:
            now_ms = _head.decode(next(payloads, b""))
            for payload in payloads:
                if not payload:
                    break
                number, rows = _rows.decode(payload)
                load = made[number].load
                for key, value, deadline in rows:
                    load(key, value, deadline)
            else:
                raise MalformedMessageError("a snapshot ends within the stores")
        except (msgspec.MsgspecError, KeyError) as fault:
            raise MalformedMessageError(f"the stores of a snapshot are damaged: {fault}") from None
        for store in made.values():
            store.advance(now_ms)
        return LoadedStores(now_ms, made)

    def adopt(self, loaded: LoadedStores) -> None:
        """Become what was loaded; who has a store selected that is still there keeps it. `define` drops the others."""
        self.now_ms = loaded.now_ms
        for number, store in loaded.stores.items():
            held = self._by_number.get(number)
            if held is None:
                self._add(number, store)
            else:
                held.become(store)
                held.advance(loaded.now_ms)

    def digest(self) -> int:
        """Return a number that is the same where time and records are: a sum over all of them."""
        total = self.now_ms
        for number, store in self._by_number.items():
            for key, value, deadline in store.freeze().records():
                record = _encode((number, key, value, deadline))
                total += int.from_bytes(hashlib.blake2b(record, digest_size=8).digest(), "big")
        return total & 0xFFFF_FFFF_FFFF_FFFF


def _pieces(now_ms: int, stores: list[tuple[int, Frozen]]) -> Iterator[bytes]:
    yield frame(_encode(now_ms))
    while stores:
        number, frozen = stores.pop(0)
        rows: list[_Row] = []
        size = 0
        for row in frozen.records():
            size += len(row[0]) + len(row[1]) + _RECORD_BYTES
            if size > RAFT_SNAPSHOT_PIECE_BYTES and rows:
                yield frame(_encode((number, rows)))
                rows, size = [], len(row[0]) + len(row[1]) + _RECORD_BYTES
            rows.append(row)
        if rows:
            yield frame(_encode((number, rows)))
    yield END
