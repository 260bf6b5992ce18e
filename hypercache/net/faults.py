"""What a peer is told about frames that are no good (wire.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.layers.stack import RefusedFrame
from hypercache.wire import ErrorCode, Status, events
from hypercache.wire.extension import exchange_of, stream_of
from hypercache.wire.header import HIGHEST_VERSION
from hypercache.wire.messages import GenericError, NodeJoinRequest, NodeJoinResponse, ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from collections.abc import Callable


class Fault(msgspec.Struct, frozen=True):
    """A fault in what a peer sent.

    Attributes:
        message_type: the type byte of the frame.
        code: the error code.
        text: what the error says.
        extra: the error's number (wire.md, section 1).
        takes_turn: whether the frame was a request, whose answer this is; else the error leaves at once.
        exchange: the number of the request, None where it had none.
        retry_after_ms: when the peer may try again; 0 for no word on that.
        stream: the stream that the frame came on; 0 for none.
        size: of the frame's payload, in bytes, where it came on a stream.
    """

    message_type: int
    code: int
    text: str
    extra: int = 0
    takes_turn: bool = True
    exchange: int | None = None
    retry_after_ms: int = 0
    stream: int = 0
    size: int = 0

    def answer(self, *, extended: bool) -> GenericError | ReplicateResponse | NodeJoinResponse:
        """Return what the peer hears: where it was sent too much, and the answer to its request has a word for that, that one."""
        if self.code == ErrorCode.RATE_LIMITED:
            if self.message_type == ReplicateData.TYPE:
                return ReplicateResponse(Status.RETRY_LATER, self.code & 0xFF)
            if self.message_type == NodeJoinRequest.TYPE:
                return NodeJoinResponse(Status.RETRY_LATER, self.code & 0xFF, 0)
        return self.error(extended=extended)

    def error(self, *, extended: bool) -> GenericError:
        """Return the error; to a peer that never said Hello, codes of our own go out as an internal error."""
        own = self.code >= ErrorCode.MALFORMED_MESSAGE
        return GenericError(ErrorCode.INTERNAL_ERROR if own and not extended else self.code, self.extra, self.text)


def unknown_type(message_type: int) -> Fault:
    """Return the fault of a type that nobody takes."""
    return Fault(message_type, ErrorCode.UNKNOWN_MESSAGE_TYPE, f"unknown message type 0x{message_type:02x}", message_type)


def _unknown(event: events.UnknownType) -> Fault:
    fault = unknown_type(event.type)
    if event.extension is None:
        return fault
    return msgspec.structs.replace(fault, exchange=event.extension.exchange, stream=event.extension.stream, size=event.size)


def _malformed(event: events.Malformed) -> Fault:
    text = f"malformed message: {event.reason}"
    return Fault(event.type, ErrorCode.MALFORMED_MESSAGE, text, exchange=event.exchange, stream=event.stream, size=event.size)


def _refused(event: RefusedFrame) -> Fault:
    message_type, payload = event.frame
    return Fault(
        message_type,
        event.code,
        event.text,
        exchange=exchange_of(payload),
        retry_after_ms=event.retry_after_ms,
        stream=stream_of(payload),
        size=len(payload),
    )


def _version(event: events.BadVersion) -> Fault:
    text = f"version {event.version} is not spoken here"
    return Fault(event.type, ErrorCode.INVALID_VERSION, text, HIGHEST_VERSION, takes_turn=False)


def _checksum(event: events.BadChecksum) -> Fault:
    return Fault(event.type, ErrorCode.CHECKSUM_MISMATCH, "checksum mismatch", event.computed, takes_turn=False)


def _large(event: events.TooLarge) -> Fault:
    text = f"a payload of {event.length} bytes exceeds the limit of {event.limit}"
    return Fault(event.type, ErrorCode.MESSAGE_TOO_LARGE, text, event.limit, takes_turn=False)


FAULTS: Final[dict[type[Any], Callable[[Any], Fault]]] = {
    events.UnknownType: _unknown,
    events.Malformed: _malformed,
    events.BadVersion: _version,
    events.BadChecksum: _checksum,
    events.TooLarge: _large,
    RefusedFrame: _refused,
}
"""The fault that each of a decoder's events stands for."""
