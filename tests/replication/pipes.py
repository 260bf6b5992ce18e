"""Nodes without sockets: stores, feeds and appliers, joined by queues that a test moves on one by one."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.replication.journal import take_changes
from hypercache.replication.outbox import Change
from hypercache.store import Keyspace
from hypercache.wire import Decoder
from hypercache.wire.events import Event, Extended
from hypercache.wire.header import EXTENDED_VERSION
from hypercache.wire.messages import ReplicateData

if TYPE_CHECKING:
    from hypercache.store import Store
    from hypercache.wire.messages import ReplicateResponse

NOW_MS = 1_800_000_000_000


def opened(payloads: list[bytes]) -> list[Extended]:
    """Return the requests that a feed made for an extended peer."""
    decoder = Decoder()
    events: list[Event] = []
    for payload in payloads:
        decoder.open(EXTENDED_VERSION, ReplicateData.TYPE, payload, events)
    found = [event for event in events if isinstance(event, Extended)]
    assert len(found) == len(payloads)
    return found


class PureNode:
    """The replicating part of a node."""

    def __init__(self, origin: int, *, outbox: int = 1000) -> None:
        self.origin = origin
        self.now_ms = NOW_MS
        self.keyspace = Keyspace(origin=origin, rng=random.Random(origin))
        self.keyspace.advance(self.now_ms)
        self.keyspace.start_journals(self._before_flush)
        self.applier = Applier(self.keyspace)
        self.feeds: dict[int, Feed] = {}
        self._outbox = outbox

    def store(self) -> Store:
        self.keyspace.advance(self.now_ms)
        store = self.keyspace.by_name("default")
        assert store is not None
        return store

    def link(self, peer: int, window: int = 4) -> None:
        self.drain()
        feed = self.feeds[peer] = Feed(extended=True, max_frame=1 << 20, window_count=window, outbox_max=self._outbox)
        feed.start_copy()

    def drain(self) -> None:
        for store in self.keyspace.all_stores():
            changes = take_changes(store)
            for feed in self.feeds.values():
                feed.changed(store.name, *changes)

    def _before_flush(self, store: Store) -> None:
        self.drain()
        for feed in self.feeds.values():
            feed.flushed(store.name, store.keys(), Change(0, store.next_stamp(), store.floor))

    def contents(self) -> dict[bytes, tuple[bytes, int, int]]:
        store = self.store()
        found = {}
        for key in list(store.keys()):
            record = store.record(key)
            assert record is not None
            found[key] = (record.value, record.deadline, record.stamp)
        return found


class Pipe:
    """One direction of a link: messages wait to be applied, their answers to be taken."""

    def __init__(self, source: PureNode, target: PureNode) -> None:
        self.source = source
        self.target = target
        self.waiting: deque[Extended] = deque()
        self.answers: deque[tuple[int, ReplicateResponse]] = deque()
        self._next = 1

    def produce(self) -> None:
        self.source.drain()
        feed = self.source.feeds[self.target.origin]
        self.source.keyspace.advance(self.source.now_ms)
        payloads = feed.produce(self.source.keyspace.stores, self.source.now_ms, self._next)
        self._next += len(payloads)
        self.waiting += opened(payloads)

    def apply(self) -> None:
        if self.waiting:
            event = self.waiting.popleft()
            answer = self.target.applier.apply(event.message, event.extension, self.target.now_ms, member=True)  # type: ignore[arg-type]
            assert event.extension.exchange is not None
            self.answers.append((event.extension.exchange, answer))

    def answer(self) -> None:
        if self.answers:
            self.source.feeds[self.target.origin].answered(*self.answers.popleft(), self.source.now_ms)

    def lose(self) -> None:
        """Break the link: what is on its way is gone, and the next link starts with a full copy."""
        self.waiting.clear()
        self.answers.clear()
        self.source.link(self.target.origin)

    @property
    def is_level(self) -> bool:
        store = self.source.store()
        return self.source.feeds[self.target.origin].is_level and not store.dirty


def settle(pipes: list[Pipe]) -> None:
    """Move everything on until all pipes are level."""
    for _ in range(10_000):
        if all(pipe.is_level for pipe in pipes):
            return
        for pipe in pipes:
            pipe.produce()
            while pipe.waiting:
                pipe.apply()
            while pipe.answers:
                pipe.answer()
        for node in {pipe.source.origin: pipe.source for pipe in pipes}.values():
            node.now_ms += 1 if all(pipe.source.feeds[pipe.target.origin].retry_at_ms == 0 for pipe in pipes) else 250
    raise AssertionError("the nodes did not get level")
