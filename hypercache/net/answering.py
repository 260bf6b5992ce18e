"""How a link's answers leave: to a base peer in the order of its requests, to an extended peer with the number of each."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from hypercache.net.turns import Turn, Turns
from hypercache.wire import ErrorCode, Extension, More
from hypercache.wire.extension import PLAIN_HEAD, encode_extension, reply_head
from hypercache.wire.messages import GenericError
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
    """

    __slots__ = ("_factory", "_later", "_link", "turns")

    def __init__(self, link: PeerLink) -> None:
        self.turns = Turns(link.put)
        self._link = link
        self._factory = link.factory
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

    def reply(self, answer: Message, exchange: int | None) -> None:
        """Send an answer to an extended peer."""
        factory = self._factory
        payload = answer.encode_payload()
        if len(payload) >= self._link.longest[answer.TYPE]:
            text = f"the answer of {len(payload)} bytes exceeds what this link carries"
            answer = GenericError(ErrorCode.MESSAGE_TOO_LARGE, self._link.longest[answer.TYPE], text)
            payload = answer.encode_payload()
        factory.last_payload_of, factory.last_payload = answer, payload
        factory.metrics.meter(answer.TYPE).sent += 1
        self._link.put_frame(answer.TYPE, (PLAIN_HEAD if exchange is None else reply_head(exchange)) + payload)

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
                self.reply(result, extension.exchange)
            self._link.answered()

        answer.addBoth(ready).addErrback(self._cannot_answer, message_type)

    def _cannot_answer(self, failure: Failure, message_type: int) -> None:
        """Log an answer that is no message, or one that does not fit its layout."""
        _log.failure("the answer to type 0x{type:02x} cannot be sent", failure, type=message_type)

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
