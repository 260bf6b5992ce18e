"""What a peer is told about frames that are no good (wire.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from hypercache.wire import ErrorCode, events
from hypercache.wire.header import HIGHEST_VERSION
from hypercache.wire.messages import GenericError

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
    """

    message_type: int
    code: int
    text: str
    extra: int = 0
    takes_turn: bool = True

    def error(self, *, extended: bool) -> GenericError:
        """Return the error; to a peer that never said Hello, codes of our own go out as an internal error."""
        own = self.code >= ErrorCode.MALFORMED_MESSAGE
        return GenericError(ErrorCode.INTERNAL_ERROR if own and not extended else self.code, self.extra, self.text)


def unknown_type(message_type: int) -> Fault:
    """Return the fault of a type that nobody takes."""
    return Fault(message_type, ErrorCode.UNKNOWN_MESSAGE_TYPE, f"unknown message type 0x{message_type:02x}", message_type)


def _unknown(event: events.UnknownType) -> Fault:
    return unknown_type(event.type)


def _malformed(event: events.Malformed) -> Fault:
    return Fault(event.type, ErrorCode.MALFORMED_MESSAGE, f"malformed message: {event.reason}")


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
}
"""The fault that each of a decoder's events stands for."""
