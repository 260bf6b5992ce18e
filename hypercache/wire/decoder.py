"""Bytes in, events out (wire.md, section 2).

The decoder never raises on a peer's bytes, yields the same events however the bytes are cut, and does work that is linear in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypercache.errors import MalformedMessageError
from hypercache.limits import ERRORS_MAX_COUNT, HEADER_BYTES, MAX_FRAME_BYTES, RESYNC_MAX_BYTES, SMALL_FRAME_BYTES
from hypercache.wire.checksum import crc32
from hypercache.wire.events import BadChecksum, BadVersion, Broken, Event, Extended, Garbage, Malformed, TooLarge, UnknownType
from hypercache.wire.extension import Extension, TraceLoopError, decode_extended
from hypercache.wire.header import BASE_VERSION, EXTENDED_VERSION, HEADER, MAGIC, MAGIC_NUMBER, length_limits
from hypercache.wire.messages import SCHEMA

if TYPE_CHECKING:
    from hypercache.wire.schema import Schema

_NONE: Final = -1
_HANDSHAKE: Final = range(0x01, 0x05)
_UNAUTHENTICATED_LIMITS: Final = (SMALL_FRAME_BYTES,) * 256


class Decoder:
    """The frames of one link.

    Args:
        schema: the messages that are understood.
        max_frame: the longest payload of the types that may be long, in bytes.
        resync_bytes_max: how much garbage since the last sound frame ends the link.
        errors_max: how many version, checksum and length errors since then do.

    Attributes:
        extended: whether version 0x02 was agreed on; else such a frame is of an unknown version.
        strict: whether any garbage or mismatch ends the link: after Hello, and over TLS.
        stepwise: stop behind each message of the handshake, for it changes how what follows is read; ``feed(b"")`` goes on.
        stopped: it has stopped so.
        greeting: the frame of the Hello or HelloReply that was decoded last, as sent.
        raw_version: frames of this version are reported as `Frame`s, for layers to work on; -1 for none.
        only_version: a frame of any other version ends the link; -1 for no such rule.
        bare: a frame that is compressed or signed is malformed: where that was agreed on, layers have seen to it before.
        broken: whether the link must close; nothing is decoded any more.
    """

    __slots__ = (
        "_authenticated",
        "_errors",
        "_errors_max",
        "_failed_bytes",
        "_garbage",
        "_held",
        "_limits",
        "_max_frame",
        "_needed",
        "_offset",
        "_resync_bytes",
        "_resync_bytes_max",
        "_schema",
        "bare",
        "broken",
        "extended",
        "greeting",
        "only_version",
        "raw_version",
        "stepwise",
        "stopped",
        "strict",
    )

    def __init__(
        self,
        schema: Schema = SCHEMA,
        *,
        max_frame: int = MAX_FRAME_BYTES,
        resync_bytes_max: int = RESYNC_MAX_BYTES,
        errors_max: int = ERRORS_MAX_COUNT,
        authenticated: bool = True,
    ) -> None:
        self._schema = schema
        self._max_frame = max_frame
        self._resync_bytes_max = resync_bytes_max
        self._errors_max = errors_max
        self.authenticated = authenticated
        self.extended = False
        self.strict = False
        self.stepwise = False
        self.stopped = False
        self.greeting = b""
        self.raw_version = _NONE
        self.only_version = _NONE
        self.bare = False
        self.broken = False
        # What was read and not yet decoded, and how much there must be before a look at it is worth anything.
        self._held = bytearray()
        self._needed = HEADER_BYTES
        # The place in the stream at which `_held` begins.
        self._offset = 0
        self._garbage = 0
        self._resync_bytes = 0
        self._errors = 0
        self._failed_bytes = 0

    @property
    def authenticated(self) -> bool:
        """Whether the peer may send long frames."""
        return self._authenticated

    @authenticated.setter
    def authenticated(self, authenticated: bool) -> None:
        self._authenticated = authenticated
        self._limits = length_limits(self._max_frame) if authenticated else _UNAUTHENTICATED_LIMITS

    @property
    def pending_bytes(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._held)

    @property
    def awaited_bytes(self) -> int:
        """How long the unfinished frame will be, header and all; 0 where none is begun (a header counts once it is whole)."""
        return self._needed if self._held and self._needed > HEADER_BYTES else 0

    def feed(self, data: bytes) -> list[Event]:
        """Decode what was read.

        Args:
            data: the bytes of one read.

        Returns:
            All events, in order; `Broken` is the last that ever comes.
        """
        events: list[Event] = []
        if self.broken:
            return events
        self.stopped = False
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return events
            data = bytes(self._held)
        at = self._decode(data, events)
        if self.broken:
            self._held = bytearray()
            return events
        self._offset += at
        self._held = bytearray(memoryview(data)[at:]) if at < len(data) else bytearray()
        return events

    def _decode(self, data: bytes, events: list[Event]) -> int:
        """Decode from the start of ``data``; return where what cannot be decided yet begins."""
        at = 0
        end = len(data)
        by_type = self._schema.by_type
        while not self.broken:
            self._needed = HEADER_BYTES
            if end - at < HEADER_BYTES:
                # Even a part of a header may show that this is no frame.
                if data.startswith(MAGIC, at) or MAGIC.startswith(data[at:end]):
                    return at
                at = self._skip(data, at, events)
                continue
            magic, version, message_type, length, checksum = HEADER.unpack_from(data, at)
            if magic != MAGIC_NUMBER:
                at = self._skip(data, at, events)
                continue
            if length > self._limits[message_type]:
                at = self._refuse(at, TooLarge(message_type, length, self._limits[message_type]), events)
                continue
            stop: int = at + HEADER_BYTES + length
            if stop > end:
                self._needed = stop - at
                return at
            payload = data[at + HEADER_BYTES : stop]
            computed = crc32(payload)
            if computed != checksum:
                self._failed_bytes += length
                if self._failed_bytes > 4 * self._max_frame + 16 * (self._offset + at):
                    self._break("too many damaged frames", events)
                    break
                at = self._refuse(at, BadChecksum(message_type, computed), events)
                continue
            self._flush_garbage(events)
            if version != self.only_version and self.only_version != _NONE:
                self._break(f"a frame of version {version} where only {self.only_version} is allowed", events)
                break
            if version == self.raw_version:
                self._sound()
                events.append((message_type, payload))
                stop = self._scan_raw(data, stop, end, events)
            elif version == BASE_VERSION:
                self._sound()
                cls = by_type(message_type)
                if cls is None:
                    events.append(UnknownType(message_type, payload, version))
                else:
                    try:
                        events.append(cls.decode_payload(payload))
                    except MalformedMessageError as error:
                        self._malformed(message_type, error, events)
                        break
                    if self.stepwise and message_type in _HANDSHAKE:
                        self.greeting = data[at:stop]
                        self.stopped = True
                        return stop
                    if cls.scan is not None:
                        # Frames come in runs of one type.
                        stop = cls.scan(data, stop, end, self._limits[message_type], events.append)
            elif version == EXTENDED_VERSION and self.extended:
                self._sound()
                self.open(EXTENDED_VERSION, message_type, payload, events)
                cls = by_type(message_type)
                if cls is not None and cls.scan_extended is not None and not self.broken:
                    stop = cls.scan_extended(data, stop, end, self._limits[message_type], events.append, Extended, Extension)
            else:
                events.append(BadVersion(version, message_type))
                self._count_error(events)
            at = stop
        return at

    def _scan_raw(self, data: bytes, at: int, end: int, events: list[Event]) -> int:
        """Take a run of sound frames for the layers; return where it ends: before anything else, which takes twice as long."""
        version, limits, unpack, append = self.raw_version, self._limits, HEADER.unpack_from, events.append
        last = end - HEADER_BYTES
        while at <= last:
            magic, found, message_type, length, checksum = unpack(data, at)
            stop: int = at + HEADER_BYTES + length
            if magic != MAGIC_NUMBER or found != version or stop > end or length > limits[message_type]:
                break
            payload = data[at + HEADER_BYTES : stop]
            if crc32(payload) != checksum:
                break
            append((message_type, payload))
            at = stop
        return at

    def open_all(self, version: int, frames: list[Any]) -> list[Any]:
        """Decode sound frames that came through layers.

        Args:
            version: theirs.
            frames: `Frame`s; what else is among them stays as it is.

        Returns:
            The events, up to one that breaks the link; what broke it before stood behind these frames.
        """
        events: list[Any] = []
        place = 0
        while place < len(frames):
            frame = frames[place]
            place += 1
            if frame.__class__ is not tuple:
                events.append(frame)
                continue
            message_type, payload = frame
            self.open(version, message_type, payload, events)
            if events and events[-1].__class__ is Broken:
                break
            cls = self._schema.by_type(message_type)
            if version == EXTENDED_VERSION and cls is not None and cls.open_run is not None:
                # As in `_decode`.
                place = cls.open_run(frames, place, events.append, Extended, Extension)
        return events

    def open(self, version: int, message_type: int, payload: bytes, events: list[Event]) -> None:
        """Decode the payload of a sound frame.

        Args:
            version: the frame's.
            message_type: its type byte.
            payload: extension and body, or in version 0x01 the body.
            events: what comes of it is added here.
        """
        cls = self._schema.by_type(message_type)
        extension: Extension | None = None
        size = len(payload)
        try:
            if version == EXTENDED_VERSION:
                extension, payload = decode_extended(payload, self._limits[message_type], bare=self.bare)
            if cls is None:
                events.append(UnknownType(message_type, payload, version, extension, size))
            else:
                message = cls.decode_payload(payload) if extension is None else cls.decode_body(payload)
                events.append(message if extension is None else Extended(message, extension, size))
        except TraceLoopError as error:
            exchange, stream = error.exchange, error.stream
            events.append(Malformed(message_type, str(error), closes=False, exchange=exchange, stream=stream, size=size))
        except MalformedMessageError as error:
            self._malformed(message_type, error, events)

    def _skip(self, data: bytes, at: int, events: list[Event]) -> int:
        """Skip to the next magic, or to what may become one at the end; return where that is."""
        if self.strict:
            self._break("bytes that are no frame", events)
            return at
        found = data.find(MAGIC, at + 1)
        if found < 0:
            found = _partial_magic(data, at + 1)
        self._garbage += found - at
        self._resync_bytes += found - at
        if self._resync_bytes > self._resync_bytes_max:
            self._break(f"more than {self._resync_bytes_max} bytes without a sound frame", events)
        return found

    def _refuse(self, at: int, event: TooLarge | BadChecksum, events: list[Event]) -> int:
        """Report a bad header and return where the search goes on: right behind its magic."""
        self._flush_garbage(events)
        events.append(event)
        if self.strict:
            self._break("a damaged frame", events)
        else:
            self._count_error(events)
        return at + len(MAGIC)

    def _flush_garbage(self, events: list[Event]) -> None:
        if self._garbage:
            events.append(Garbage(self._garbage))
            self._garbage = 0

    def _sound(self) -> None:
        self._resync_bytes = 0
        self._errors = 0

    def _count_error(self, events: list[Event]) -> None:
        self._errors += 1
        if self._errors > self._errors_max:
            self._break(f"more than {self._errors_max} errors without a sound frame", events)

    def _malformed(self, message_type: int, error: MalformedMessageError, events: list[Event]) -> None:
        events.append(Malformed(message_type, str(error)))
        self._break("a malformed message", events)

    def _break(self, reason: str, events: list[Event]) -> None:
        self.broken = True
        events.append(Broken(reason))


def _partial_magic(data: bytes, at: int) -> int:
    """Return where a beginning of the magic at the end of ``data`` starts, not before ``at``; the end where there is none."""
    for length in (3, 2, 1):
        start = len(data) - length
        if start >= at and MAGIC.startswith(data[start:]):
            return start
    return len(data)
