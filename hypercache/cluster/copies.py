"""The first form of replication: every write goes to every member, and a member that is linked anew gets a full copy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from hypercache.errors import RequestError
from hypercache.interfaces import IReplicator
from hypercache.limits import CLOCK_SKEW_MAX_SECONDS, REPLICATION_SLICE_COUNT
from hypercache.net.stream import FINISHED
from hypercache.replication.feed import Feed
from hypercache.replication.journal import take_changes
from hypercache.replication.outbox import Change
from hypercache.replication.stamps import ORIGIN_BITS, is_too_far_ahead
from hypercache.wire import Capability, Status
from hypercache.wire.extension import TraceLoopError
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.peer import PeerLink
    from hypercache.net.stream import Stream
    from hypercache.store import Keyspace, Store
    from hypercache.tracing import Tracer
    from hypercache.wire import Message
    from hypercache.wire.extension import Trace

_log = Logger()
_SKEW_MAX_MS: Final = int(CLOCK_SKEW_MAX_SECONDS * 1000)


@implementer(IReplicator, IPushProducer)
class CopyReplicator:
    """Sends every change to every member.

    Args:
        keyspace: the stores.
        clock: the reactor.
        wall: returns Unix seconds.
        make_feed: returns a new feed, told whether the peer is extended.
        skew_max_ms: a peer whose clock is further ahead than this is reported, in milliseconds.
        tracer: knows which changes are traced; None where none are.
    """

    def __init__(
        self,
        keyspace: Keyspace,
        *,
        clock: Any,
        wall: Callable[[], float],
        make_feed: Callable[[bool], Feed],
        skew_max_ms: int = _SKEW_MAX_MS,
        tracer: Tracer | None = None,
    ) -> None:
        self._keyspace = keyspace
        self._clock = clock
        self._wall = wall
        self._make_feed = make_feed
        self._skew_max_ms = skew_max_ms
        self.tracer = tracer
        self._feeds: dict[PeerLink, Feed] = {}
        # The stream of each full copy that is under way; None where the link has none to give.
        self._streams: dict[PeerLink, Stream | None] = {}
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
            if self.tracer is not None:
                self.tracer.replicates = True

    def link_up(self, link: PeerLink) -> None:
        """Send a member everything, then every change."""
        # Until the first member there is nobody to tell, and nothing is noted; the full copy has it all.
        self.activate()
        feed = self._make_feed(link.extended)
        greeting = link.greeting
        if greeting is not None:
            feed.limit_frame(greeting.max_frame)
            self._hear_clock(link, greeting.clock)
        # What has changed until now is in the full copy.
        self._drain()
        feed.start_copy()
        self._follow(link, feed)

    def link_down(self, link: PeerLink) -> None:
        """Forget what a member was to be sent: it gets a full copy when it is back."""
        self._leave(link)
        self._check_level()

    def link_moved(self, old: PeerLink, new: PeerLink) -> None:
        """Go on over another link to the same member: nothing was missed, and what was asked is answered over the old one."""
        feed = self._leave(old)
        if feed is None:
            self.link_up(new)
        else:
            self._follow(new, feed)

    def resumeProducing(self) -> None:
        """Go on: a member reads again (`IPushProducer`)."""
        self.poke()

    def pauseProducing(self) -> None:
        """Hold back: a member does not read; `poke` asks its link (`IPushProducer`)."""

    def stopProducing(self) -> None:
        """Nothing more can be sent to a member: its link is lost, and says so itself (`IPushProducer`)."""

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

    def _follow(self, link: PeerLink, feed: Feed) -> None:
        self._feeds[link] = feed
        link.register_producer(self)
        self.poke()

    def _leave(self, link: PeerLink) -> Feed | None:
        feed = self._feeds.pop(link, None)
        if feed is not None:
            link.unregister_producer(self)
            self._end_copy(link)
        return feed

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
        tracer = self.tracer
        traced = tracer.changed.take() if tracer is not None and tracer.changed.held else None
        for store in self._keyspace.all_stores():
            if store.dirty:
                whole, deadlines = take_changes(store)
                for feed in self._feeds.values():
                    feed.changed(store.name, whole, deadlines)
                if traced:
                    for (name, key), trace in traced.items():
                        if name == store.name and (key in whole or key in deadlines):
                            self._trace(name, key, trace)

    def _trace(self, store: str, key: bytes, trace: Trace) -> None:
        """Have the members that know traces hear whose change it is; a trace that may go no further ends here."""
        assert self.tracer is not None
        for link, feed in self._feeds.items():
            if link.capabilities & Capability.TRACING:
                try:
                    feed.traced(store, key, self.tracer.child(trace))
                except TraceLoopError:
                    return

    # Towards the members

    def _send(self) -> None:
        self._scheduled = False
        self._drain()
        now_ms = int(self._wall() * 1000)
        retry_at_ms = 0
        for link, feed in list(self._feeds.items()):
            if feed.is_idle:
                continue
            if link.usable and link.writable:
                self._send_to(link, feed, now_ms)
            if feed.retry_at_ms:
                retry_at_ms = min(retry_at_ms or feed.retry_at_ms, feed.retry_at_ms)
        if retry_at_ms and (self._retry is None or not self._retry.active()):
            self._retry = self._clock.callLater(max(0.001, (retry_at_ms - now_ms) / 1000), self.poke)
        self._check_level()

    def _send_to(self, link: PeerLink, feed: Feed, now_ms: int) -> None:
        knew_oversized = feed.oversized
        stream = self._stream_for(link) if feed.is_copying else None
        if feed.can_tell_changes or feed.retry_at_ms or (feed.can_copy and stream is None):
            first = link.factory.numbers.take(REPLICATION_SLICE_COUNT)
            payloads = feed.produce(self._keyspace.stores, now_ms, first, copy=stream is None)
            if payloads:
                self._ask(link, feed, first, payloads)
            # A slice at a time, so that clients get their turn in between.
            if link.writable and (feed.can_tell_changes or (feed.can_copy and stream is None)):
                self.poke()
        if stream is not None:
            self._copy_on(stream, link, feed, now_ms)
        if feed.oversized and not knew_oversized:
            _log.warn("a record is too large for a frame to {address}: it is left out", address=link.address)

    def _ask(self, link: PeerLink, feed: Feed, first: int, payloads: list[bytes], stream: Stream | None = None) -> None:
        sink = _Answers(self, feed).take
        try:
            link.ask_run(ReplicateData.TYPE, ReplicateResponse.TYPE, first, payloads, sink, stream)
        except RequestError as error:
            for number in range(first, first + len(payloads)):
                sink(number, error)

    def _copy_on(self, stream: Stream, link: PeerLink, feed: Feed, now_ms: int) -> None:
        """Send as much of a full copy as its stream has room for; when there is more, the stream says so (`resumeProducing`)."""
        while feed.can_copy and not stream.full:
            number = link.factory.numbers.take(1)
            payload = feed.next_copied(self._keyspace.stores, now_ms, number, stream.stream_id)
            if payload is None:
                break
            self._ask(link, feed, number, [payload], stream)
        if not feed.is_copying:
            self._end_copy(link)

    def _stream_for(self, link: PeerLink) -> Stream | None:
        """Return the stream of the full copy over a link; None where it goes between all else: the link has no stream to give."""
        if link not in self._streams:
            try:
                stream = self._streams[link] = link.open_stream()
            except RequestError:
                self._streams[link] = None
            else:
                stream.on_end = partial(self._stream_ended, link)
                stream.register_producer(self)
        return self._streams[link]

    def _stream_ended(self, link: PeerLink, code: int) -> None:
        """Go on without a stream: the peer has given it up, and what was sent on it is sent again when no answer has come."""
        if code != FINISHED and link in self._streams:
            self._streams[link] = None
            self.poke()

    def _end_copy(self, link: PeerLink) -> None:
        stream = self._streams.pop(link, None)
        if stream is not None:
            stream.unregister_producer()
            stream.finish()

    def answered(self, feed: Feed, number: int, answer: Message | RequestError) -> None:
        """Take a member's answer that is no success, or why there is none."""
        feed.answered(number, None if isinstance(answer, RequestError) else answer, int(self._wall() * 1000))

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

    def take(self, number: int, answer: Message | RequestError) -> None:
        """Take one."""
        if answer.__class__ is ReplicateResponse and answer.status == Status.SUCCESS:
            self._feed.acknowledged(number)
        else:
            self._replicator.answered(self._feed, number, answer)
        self._replicator.poke()
