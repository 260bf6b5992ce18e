"""What can be sent over a link: messages, requests, and transfers on streams of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol

from hypercache.errors import BusyError, LinkLostError, MessageTooLargeError, RequestError
from hypercache.limits import HEADER_BYTES, REQUESTS_MAX_COUNT
from hypercache.net.exchanges import Exchanges, Sink, sink_of
from hypercache.net.lifecycle import LinkState
from hypercache.net.streams import Stream, Streams
from hypercache.wire import Capability, Extension
from hypercache.wire.extension import PLAIN_HEAD, encode_extension, request_head
from hypercache.wire.header import length_limits
from hypercache.wire.messages import Heartbeat, HeartbeatResponse

if TYPE_CHECKING:
    from hypercache.net.outgoing import Outgoing
    from hypercache.net.peer import PeerFactory
    from hypercache.wire import Message

URGENT_TYPES: Final = frozenset((*range(0x10, 0x14), *range(0x15, 0x19), 0x1B, 0x1C, Heartbeat.TYPE, HeartbeatResponse.TYPE))
"""What goes before all else: Raft, but for snapshots and proposals, and heartbeats."""


class SendingLink(Protocol):
    """The sending half of a link.

    Args:
        factory: what all links share.
        dialled: whether this side opened the connection.

    Attributes:
        state: where in its life cycle it is.
        extended: Hello agreed on version 0x02.
        capabilities: what both sides can do.
        address: where it is connected from or to.
        connected_now: whether the connection is open.
        outgoing: what is on its way to the peer.
        longest: by the type byte: the longest payload that may be sent, in bytes.
        exchanges: what was asked and is not answered.
        streams: bulk transfers.
    """

    transport: Any
    outgoing: Outgoing

    def __init__(self, factory: PeerFactory, *, dialled: bool) -> None:
        self.factory = factory
        self.dialled = dialled
        self.state = LinkState.DISCONNECTED
        self.extended = False
        self.capabilities = Capability(0)
        self.address = "?"
        self.connected_now = False
        self.longest: tuple[int, ...] = length_limits(factory.settings.max_frame)
        self.exchanges = Exchanges()
        self.streams = Streams(
            dialled=dialled,
            most=factory.settings.streams_max,
            metrics=factory.metrics,
            send_urgent=self._send_urgent,
            stir=self._stir,
        )
        # Who is paused while the peer does not read.
        self._producers: list[Any] = []
        self._sending = True

    @property
    def writable(self) -> bool:
        """Whether the transport takes more; while it does not, nothing but answers should be sent."""
        return self.connected_now and self.outgoing.writable

    @property
    def usable(self) -> bool:
        """Whether requests may be sent: the link is connected, and not on its way down."""
        return self.state is LinkState.CONNECTED

    def send(self, message: Message, extension: Extension | None = None) -> None:
        """Send a message: with what this read makes, or at the end of this turn of the reactor.

        Args:
            message: the message.
            extension: what goes with it; a base peer gets the message alone.

        Raises:
            MessageTooLargeError: the peer would not take it.
        """
        if self.extended:
            body = message.encode_body()
            payload = PLAIN_HEAD + body if extension is None else encode_extension(extension, body)
            self.check_size(message.TYPE, len(payload))
            self.put_frame(message.TYPE, payload)
        else:
            frame = message.encode_frame()
            self.check_size(message.TYPE, len(frame) - HEADER_BYTES)
            self.put(frame)
        self.factory.metrics.meter(message.TYPE).sent += 1

    def check_size(self, message_type: int, size: int) -> None:
        """Hold a payload against what the peer takes; one that is too long would cost the link.

        Raises:
            MessageTooLargeError: it is too long.
        """
        if size > self.longest[message_type]:
            raise MessageTooLargeError(
                f"a payload of {size} bytes exceeds the {self.longest[message_type]} that {self.address} takes of type "
                f"0x{message_type:02x}"
            )

    def send_frame(self, frame: bytes, message_type: int) -> None:
        """Send a whole version 0x01 frame: one of the handshake."""
        self.factory.metrics.meter(message_type).sent += 1
        self.put(frame)

    def request(self, message: Message, *, timeout: float | None = None, extension: Extension | None = None) -> Deferred[Any]:
        """Send a request.

        Args:
            message: the request; its class says what answers it.
            timeout: seconds until the answer must be there; None for the setting ``cluster.request_timeout``.
            extension: what goes with it, beside the number of the exchange.

        Returns:
            Fires with the answer; fails with a RequestError: RefusedError where the answer is a GenericError, BusyError where too
            much waits already and nothing was sent, DeadlineError, or LinkLostError; or with MessageTooLargeError.
        """
        answer: Deferred[Any] = Deferred()
        try:
            self.ask(message, sink_of(answer), timeout=timeout, extension=extension)
        except (RequestError, MessageTooLargeError) as error:
            return fail(error)
        return answer

    def ask(
        self,
        message: Message,
        sink: Sink,
        *,
        timeout: float | None = None,
        extension: Extension | None = None,
        stream: Stream | None = None,
    ) -> int:
        """Send a request whose answer goes to a callback.

        Args:
            message: the request.
            sink: is called with the request's number and the answer, or the RequestError in its place.
            timeout: as of `request`.
            extension: as of `request`.
            stream: the stream that the request travels on; the answer needs none.

        Returns:
            The request's number.

        Raises:
            LinkLostError: the link is closed.
            BusyError: too much waits already.
            MessageTooLargeError: the peer would not take it.
        """
        self.check_room()
        factory = self.factory
        number: int = factory.numbers.take(1)
        if timeout is None:
            timeout = factory.settings.request_timeout
        if not self.extended:
            frame = message.encode_frame()
            self.check_size(message.TYPE, len(frame) - HEADER_BYTES)
            self._expect(message.TYPE, number, message.ANSWER, sink, timeout)
            self.put(frame)
        else:
            body = message.encode_body()
            if extension is None and stream is None:
                payload = request_head(number) + body
            else:
                own = extension or Extension()
                stream_id = stream.stream_id if stream is not None else 0
                full = Extension(number, False, stream_id, own.stamp, own.trace, None, False, own.more)
                payload = encode_extension(full, body)
            self.check_size(message.TYPE, len(payload))
            self._expect(message.TYPE, number, message.ANSWER, sink, timeout)
            if stream is None:
                self.put_frame(message.TYPE, payload)
            else:
                try:
                    stream.put(message.TYPE, payload)
                except RequestError:
                    self.exchanges.forget(number)
                    raise
        return number

    def ask_run(
        self, message_type: int, answer_type: int, first: int, payloads: list[bytes], sink: Sink, stream: Stream | None = None
    ) -> None:
        """Send requests of one type whose payloads are encoded already, for the bulk of all traffic.

        Args:
            message_type: their type.
            answer_type: that of their answers.
            first: the number of the first; the others follow (`hypercache.net.exchanges.Numbers`).
            payloads: of an extended link with their extensions, which carry the numbers; else whole frames.
            sink: takes the answers.
            stream: the stream that they travel on; their extensions name it.

        Raises:
            LinkLostError: the link is closed, or the stream is.
            BusyError: the stream has no room for them all, or the numbers have gone round and are still waited for.
        """
        count = len(payloads)
        self._expect(message_type, first, answer_type, sink, self.factory.settings.bulk_timeout, count)
        if stream is not None:
            for place, payload in enumerate(payloads):
                try:
                    stream.put(message_type, payload)
                except RequestError:
                    for number in range(first + place, first + count):
                        self.exchanges.forget(number)
                    raise
        elif self.extended:
            for payload in payloads:
                self.outgoing.put((message_type, payload))
        else:
            self.put(b"".join(payloads))

    def check_room(self) -> None:
        """Say whether a request may be sent.

        Raises:
            LinkLostError: the link is closed, or about to be.
            BusyError: `REQUESTS_MAX_COUNT` are not answered yet.
        """
        if not self.usable:
            raise LinkLostError(f"the link to {self.address} is closed")
        if len(self.exchanges) >= REQUESTS_MAX_COUNT:
            self.factory.metrics.refused_requests += 1
            raise BusyError(f"{REQUESTS_MAX_COUNT} requests to {self.address} are not answered yet")

    def open_stream(self) -> Stream:
        """Return a new stream, for a transfer that must not hold up anything else.

        Raises:
            LinkLostError: the link is closed, or the peer knows no streams.
            BusyError: too many are open.
        """
        self.check_room()
        if not self.capabilities & Capability.MULTIPLEXING:
            raise LinkLostError(f"{self.address} knows no streams")
        return self.streams.open()

    def send_on(self, stream: Stream, message: Message, extension: Extension | None = None) -> None:
        """Send a message on a stream.

        Raises:
            BusyError: the stream is full.
            LinkLostError: the stream has ended.
            MessageTooLargeError: the peer would not take it.
        """
        own = extension or Extension()
        full = Extension(None, False, stream.stream_id, own.stamp, own.trace, None, False, own.more)
        payload = encode_extension(full, message.encode_body())
        self.check_size(message.TYPE, len(payload))
        stream.put(message.TYPE, payload)
        self.factory.metrics.meter(message.TYPE).sent += 1

    def register_producer(self, producer: Any) -> None:
        """Have an `IPushProducer` paused while the peer does not read, resumed when it does, and stopped when the link is lost."""
        self._producers.append(producer)
        if not self.writable:
            producer.pauseProducing()

    def unregister_producer(self, producer: Any) -> None:
        """Leave a producer alone from now on."""
        if producer in self._producers:
            self._producers.remove(producer)

    def put(self, frames: bytes) -> None:
        """Send whole frames that are counted already."""
        if self.connected_now:
            self.outgoing.put(frames)

    def put_frame(self, message_type: int, payload: bytes) -> None:
        """Send a frame of version 0x02 that is counted already."""
        if not self.connected_now:
            return
        if message_type in URGENT_TYPES:
            self.outgoing.put_urgent((message_type, payload))
        else:
            self.outgoing.put((message_type, payload))

    def _send_urgent(self, message: Message) -> None:
        if self.connected_now and self.extended:
            self.factory.metrics.meter(message.TYPE).sent += 1
            self.outgoing.put_urgent((message.TYPE, PLAIN_HEAD + message.encode_body()))

    def _stir(self) -> None:
        if self.connected_now:
            self.outgoing.stir()

    def _expect(self, message_type: int, number: int, answer_type: int, sink: Sink, timeout: float, count: int = 1) -> None:
        """Have answers go to ``sink``, and count and time their requests."""
        meter = self.factory.metrics.meter(message_type)
        meter.sent += count
        now = self.factory.clock.seconds()
        self.exchanges.expect(number, answer_type, sink, now + timeout, count, round_trips=meter.round_trips, started=now)

    def _tell_producers(self) -> None:
        """Pause or resume who sends, where the peer has stopped or begun to read."""
        writable = self.writable
        if writable != self._sending:
            self._sending = writable
            for producer in list(self._producers):
                if writable:
                    producer.resumeProducing()
                else:
                    producer.pauseProducing()
                if self._sending is not writable:
                    # What one of them sent has changed it, and all have been told so.
                    break

    def _stop_producers(self) -> None:
        """Tell who sends that nothing can be sent any more."""
        producers, self._producers = self._producers, []
        for producer in producers:
            producer.stopProducing()
