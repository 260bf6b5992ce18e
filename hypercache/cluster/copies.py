"""The first form of replication: every write goes to every member, and a member that is linked anew gets a full copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from hypercache.interfaces import IReplicator
from hypercache.replication.feed import Feed
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.peer import PeerLink
    from hypercache.store import Keyspace, Store
    from hypercache.wire import Message


@implementer(IReplicator)
class CopyReplicator:
    """Sends every change to every member.

    Args:
        keyspace: the stores.
        clock: the reactor.
        wall: returns Unix seconds.
        make_feed: returns a new feed, told whether the peer is extended.
    """

    def __init__(self, keyspace: Keyspace, *, clock: Any, wall: Callable[[], float], make_feed: Callable[[bool], Feed]) -> None:
        self._keyspace = keyspace
        self._clock = clock
        self._wall = wall
        self._make_feed = make_feed
        self._feeds: dict[PeerLink, Feed] = {}
        self._scheduled = False
        self._waiting: list[Deferred[None]] = []
        self._active = False

    @property
    def feeds(self) -> dict[PeerLink, Feed]:
        """The feed of each member that is linked."""
        return self._feeds

    def link_up(self, link: PeerLink) -> None:
        """Send a member everything, then every change."""
        if not self._active:
            # Until the first member there is nobody to tell, and nothing is noted; the full copy has it all.
            self._active = True
            self._keyspace.start_journals(self._before_flush)
        feed = self._make_feed(link.extended)
        feed.start_copy()
        self._feeds[link] = feed
        link.when_writable = self.poke
        self.poke()

    def link_down(self, link: PeerLink) -> None:
        """Forget what a member was to be sent: it gets a full copy when it is back."""
        self._feeds.pop(link, None)
        self._check_level()

    def poke(self) -> None:
        """Send what was written, at the end of this turn of the reactor."""
        if self._active and not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._send)

    def flush(self) -> Deferred[None]:
        """Return a Deferred that fires when every linked member has everything."""
        level: Deferred[None] = Deferred()
        self._waiting.append(level)
        self.poke()
        self._check_level()
        return level

    def _before_flush(self, store: Store) -> None:
        self._drain()
        for feed in self._feeds.values():
            feed.flushed(store.name, [] if feed.extended else list(store.keys()))
        self.poke()

    def _drain(self) -> None:
        """Move the stores' journals into the outboxes."""
        for store in self._keyspace.all_stores():
            if store.dirty:
                for feed in self._feeds.values():
                    feed.changed(store.name, store.dirty)
                store.dirty.clear()

    def _send(self) -> None:
        self._scheduled = False
        self._drain()
        for link, feed in list(self._feeds.items()):
            self._send_to(link, feed)
        self._check_level()

    def _send_to(self, link: PeerLink, feed: Feed) -> None:
        if not link.writable or not (feed.has_work or feed.retry_at_ms):
            return
        now_ms = int(self._wall() * 1000)
        frames, count = feed.produce(self._keyspace.stores, now_ms)
        if count:
            link.expect(ReplicateResponse.TYPE, _Answers(self, link, feed).take, count)
            link.send_encoded(frames, count, ReplicateData.TYPE)
        if feed.retry_at_ms:
            self._clock.callLater(max(0.0, (feed.retry_at_ms - now_ms) / 1000), self.poke)

    def answered(self, link: PeerLink, feed: Feed, answer: Message | None) -> None:
        """Take a member's answer; go on where the window has opened."""
        feed.answered(answer, int(self._wall() * 1000))
        if answer is not None and feed.unanswered % 256 == 0:
            self.poke()

    def _check_level(self) -> None:
        if self._waiting and all(feed.is_level for feed in self._feeds.values()):
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)


class _Answers:
    """Where the answers of one member go."""

    __slots__ = ("_feed", "_link", "_replicator")

    def __init__(self, replicator: CopyReplicator, link: PeerLink, feed: Feed) -> None:
        self._replicator = replicator
        self._link = link
        self._feed = feed

    def take(self, answer: Message | None) -> None:
        """Take one."""
        self._replicator.answered(self._link, self._feed, answer)
