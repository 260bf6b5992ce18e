"""How a link's answers leave: to a base peer in the order of its requests, to an extended peer with the number of each."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hypercache.errors import MessageTooLargeError
from hypercache.net.turns import Turn, Turns
from hypercache.wire import ErrorCode, Extension, More
from hypercache.wire.extension import PLAIN_HEAD, REPLY_HEAD_BYTES, encode_extension, reply_head
from hypercache.wire.messages import GenericError, KeepAlive
from hypercache.wire.tracing import label

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.faults import Fault
    from hypercache.net.link import PeerLink
    from hypercache.wire import Message

_log = Logger()


class Answering:
    """The answers of one link.

    Args:
        link: the link.

    Attributes:
        turns: the answers to a base peer that wait for one that is not ready.
        last_payload_of, last_payload: the answer to an extended peer that was encoded last, and its payload.
    """

    __slots__ = ("_factory", "_later", "_link", "last_payload", "last_payload_of", "turns")

    def __init__(self, link: PeerLink) -> None:
        self.turns = Turns(link.put)
        self._link = link
        self._factory = link.factory
        self.last_payload_of: Message = KeepAlive()
        self.last_payload = b""
        # How many answers to an extended peer are not ready.
        self._later = 0

    @property
    def pending(self) -> int:
        """How many answers are not ready, or wait for one that is not."""
        return len(self.turns) + self._later

    # Base peers

    def answer(self, answer: Any, message_type: int) -> None:
        """Send an answer in its turn: after those of the requests that came before."""
        if not isinstance(answer, Deferred):
            self.turns.take(self._encoded(answer))
            return
        turn = self.turns.hold()
        started = time.perf_counter()
        answer.addCallback(self._encoded)
        answer.addErrback(self._failed, message_type)
        answer.addCallback(self._turn_done, turn, message_type, started)

    def _encoded(self, answer: Message | None) -> bytes:
        if answer is None:
            return b""
        factory = self._factory
        if answer is not factory.last_answer:
            factory.last_frame = answer.encode_frame()
            factory.last_answer = answer
        factory.metrics.meter(answer.TYPE).sent += 1
        frame: bytes = factory.last_frame
        return frame

    def _failed(self, failure: Failure, message_type: int) -> bytes:
        return self._encoded(self.internal_error(message_type, failure))

    def _turn_done(self, frame: bytes, turn: Turn, message_type: int, started: float) -> None:
        self._factory.metrics.meter(message_type).took(time.perf_counter() - started)
        self.turns.fill(turn, frame)
        self._link.answered()

    # Extended peers

    def reply(self, answer: Message, message_type: int, extension: Extension) -> None:
        """Send an answer to an extended peer; an error in its place where it is no message, or the peer would not take it.

        Args:
            answer: the answer.
            message_type: the request's.
            extension: the request's.
        """
        link, exchange = self._link, extension.exchange
        try:
            payload = answer.encode_payload()
        except Exception:  # noqa: BLE001 - a handler's bug is its own; the peer hears that there was one
            answer = self.internal_error(message_type, extension=extension)
            payload = answer.encode_payload()
        try:
            link.check_size(answer.TYPE, len(payload) + REPLY_HEAD_BYTES)
        except MessageTooLargeError:
            longest = link.longest[answer.TYPE]
            text = f"the answer of {len(payload)} bytes exceeds what this link carries"
            answer = GenericError(ErrorCode.MESSAGE_TOO_LARGE, longest, text)
            payload = answer.encode_payload()
        self.last_payload_of, self.last_payload = answer, payload
        self._factory.metrics.meter(answer.TYPE).sent += 1
        link.put_frame(answer.TYPE, (PLAIN_HEAD if exchange is None else reply_head(exchange)) + payload)

    def count_repeated(self, count: int) -> int:
        """Count answers that were sent as `last_payload` again; return 0, the count of those to come."""
        if count:
            self._factory.metrics.meter(self.last_payload_of.TYPE).sent += count
        return 0

    def reply_later(self, answer: Deferred[Any], message_type: int, extension: Extension, done: Callable[[], None] | None) -> None:
        """Send an answer to an extended peer when it is ready.

        Args:
            answer: fires with it.
            message_type: the request's.
            extension: the request's.
            done: called when the request is dealt with; None where nobody wants to know.
        """
        self._later += 1
        started = time.perf_counter()

        def ready(result: Any) -> None:
            self._later -= 1
            self._factory.metrics.meter(message_type).took(time.perf_counter() - started)
            if done is not None:
                done()
            if isinstance(result, Failure):
                result = self.internal_error(message_type, result, extension)
            if result is not None:
                self.reply(result, message_type, extension)
            self._link.answered()

        answer.addBoth(ready)

    # Errors

    def internal_error(self, message_type: int, failure: Failure | None = None, extension: Extension | None = None) -> GenericError:
        """Log a handler's failure and return what the peer hears of it: a reference, nothing of the cause."""
        reference = secrets.token_hex(4)
        trace = extension.trace if extension is not None else None
        traced = f" {label(trace)}" if trace is not None else ""
        _log.failure(
            "handling type 0x{type:02x} from {address} failed, reference {reference}{traced}",
            failure,
            type=message_type,
            address=self._link.address,
            reference=reference,
            traced=traced,
            request_id=trace.request_id.hex() if trace is not None else "",
        )
        self._factory.metrics.meter(message_type).errors += 1
        return GenericError(ErrorCode.INTERNAL_ERROR, 0, f"internal error, reference {reference}{traced}")

    def refuse(self, fault: Fault, extension: Extension | None = None) -> None:
        """Tell the peer of a fault; an error is never answered by an error, nor is an answer."""
        link = self._link
        meter = self._factory.metrics.meter(fault.message_type)
        meter.errors += 1
        if fault.message_type == GenericError.TYPE or (extension is not None and extension.reply):
            return
        if link.extended:
            answer = fault.answer(extended=True)
            exchange = extension.exchange if extension is not None else fault.exchange
            self._factory.metrics.meter(answer.TYPE).sent += 1
            more = More(retry_after=fault.retry_after_ms) if fault.retry_after_ms else None
            full = Extension(exchange, exchange is not None, more=more)
            link.put_frame(answer.TYPE, encode_extension(full, answer.encode_payload()))
            return
        frame = self._encoded(fault.answer(extended=False))
        if fault.takes_turn:
            self.turns.take(frame)
        else:
            link.put(frame)
