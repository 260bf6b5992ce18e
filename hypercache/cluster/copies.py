"""The first form of replication: every write goes to every member, and a member that is linked anew gets a full copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.interfaces import IReplicator
from hypercache.limits import CLOCK_SKEW_MAX_SECONDS
from hypercache.replication.feed import Feed
from hypercache.replication.journal import take_changes
from hypercache.replication.outbox import Change
from hypercache.replication.stamps import ORIGIN_BITS, is_too_far_ahead
from hypercache.wire import Status
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.peer import PeerLink
    from hypercache.store import Keyspace, Store
    from hypercache.wire import Message
    from hypercache.wire.messages import Hello, HelloReply

_log = Logger()
_SKEW_MAX_MS: Final = int(CLOCK_SKEW_MAX_SECONDS * 1000)


@implementer(IReplicator)
class CopyReplicator:
    """Sends every change to every member.

    Args:
        keyspace: the stores.
        clock: the reactor.
        wall: returns Unix seconds.
        make_feed: returns a new feed, told whether the peer is extended.
        skew_max_ms: a peer whose clock is further ahead than this is reported, in milliseconds.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        *,
        clock: Any,
        wall: Callable[[], float],
        make_feed: Callable[[bool], Feed],
        skew_max_ms: int = _SKEW_MAX_MS,
    ) -> None:
        self._keyspace = keyspace
        self._clock = clock
        self._wall = wall
        self._make_feed = make_feed
        self._skew_max_ms = skew_max_ms
        self._feeds: dict[PeerLink, Feed] = {}
        self._scheduled = False
        self._retry: Any = None
        self._waiting: list[Deferred[None]] = []
        self._active = False

    @property
    def feeds(self) -> dict[PeerLink, Feed]:
        """The feed of each member that is linked."""
        return self._feeds

    def activate(self) -> None:
        """Note from now on what changes and what is deleted.

        The first member has it done. A node that has had members before, or is about to join some, does it at its start: a
        member that it meets later must not bring back what was deleted here meanwhile.
        """
        if not self._active:
            self._active = True
            self._keyspace.start_journals(self._before_flush)

    def link_up(self, link: PeerLink, greeting: Hello | HelloReply | None = None) -> None:
        """Send a member everything, then every change.

        Args:
            link: the member's.
            greeting: what it said about itself; None of a base peer.
        """
        # Until the first member there is nobody to tell, and nothing is noted; the full copy has it all.
        self.activate()
        feed = self._make_feed(link.extended)
        if greeting is not None:
            feed.limit_frame(greeting.max_frame)
            self._hear_clock(link, greeting.clock)
        # What has changed until now is in the full copy.
        self._drain()
        feed.start_copy()
        self._feeds[link] = feed
        link.when_writable = self.poke
        self.poke()

    def link_down(self, link: PeerLink) -> None:
        """Forget what a member was to be sent: it gets a full copy when it is back."""
        if self._feeds.pop(link, None) is not None:
            link.when_writable = None
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
        self._drain()
        self.poke()
        self._check_level()
        return level

    # Towards the stores

    def _hear_clock(self, link: PeerLink, hlc: int) -> None:
        """Have every later stamp exceed the peer's clock (consistency.md, rule 7)."""
        stamp = hlc << ORIGIN_BITS
        if is_too_far_ahead(stamp, int(self._wall() * 1000), self._skew_max_ms):
            ahead = (hlc >> 16) / 1000 - self._wall()
            _log.error(
                "the clock of {address} is {ahead:.0f} seconds ahead: its writes are refused", address=link.address, ahead=ahead
            )
            return
        for store in self._keyspace.all_stores():
            store.observe(stamp)

    def _before_flush(self, store: Store) -> None:
        self._drain()
        change = Change(0, store.next_stamp(), store.floor)
        for link, feed in self._feeds.items():
            before = feed.left_behind
            feed.flushed(store.name, store.keys(), change)
            if feed.left_behind > before:
                _log.warn(
                    "{address} knows no flush, and {store} has too many keys to delete them all there",
                    address=link.address,
                    store=store.name,
                )
        self.poke()

    def _drain(self) -> None:
        """Move the stores' journals into the outboxes."""
        for store in self._keyspace.all_stores():
            if store.dirty:
                whole, deadlines = take_changes(store)
                for feed in self._feeds.values():
                    feed.changed(store.name, whole, deadlines)

    # Towards the members

    def _send(self) -> None:
        self._scheduled = False
        self._drain()
        now_ms = int(self._wall() * 1000)
        retry_at_ms = 0
        for link, feed in list(self._feeds.items()):
            if link.writable and (feed.can_produce or feed.retry_at_ms):
                self._send_to(link, feed, now_ms)
                # A slice at a time, so that clients get their turn in between.
                if feed.can_produce and link.writable:
                    self.poke()
            if feed.retry_at_ms:
                retry_at_ms = min(retry_at_ms or feed.retry_at_ms, feed.retry_at_ms)
        if retry_at_ms and (self._retry is None or not self._retry.active()):
            self._retry = self._clock.callLater(max(0.001, (retry_at_ms - now_ms) / 1000), self.poke)
        self._check_level()

    def _send_to(self, link: PeerLink, feed: Feed, now_ms: int) -> None:
        knew_oversized = feed.oversized
        frames, count = feed.produce(self._keyspace.stores, now_ms)
        if count:
            link.expect(ReplicateResponse.TYPE, _Answers(self, feed).take, count)
            link.send_encoded(frames, count, ReplicateData.TYPE)
        if feed.oversized and not knew_oversized:
            _log.warn("a record is too large for a frame to {address}: it is left out", address=link.address)

    def answered(self, feed: Feed, answer: Message | None) -> None:
        """Take a member's answer that is no success, or None where the link was lost."""
        feed.answered(answer, int(self._wall() * 1000))

    def _check_level(self) -> None:
        if self._waiting and all(feed.is_level for feed in self._feeds.values()):
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)


class _Answers:
    """Where the answers of one member go."""

    __slots__ = ("_feed", "_replicator")

    def __init__(self, replicator: CopyReplicator, feed: Feed) -> None:
        self._replicator = replicator
        self._feed = feed

    def take(self, answer: Message | None) -> None:
        """Take one."""
        if answer.__class__ is ReplicateResponse and answer.status == Status.SUCCESS:
            self._feed.acknowledged()
        else:
            self._replicator.answered(self._feed, answer)
        self._replicator.poke()
