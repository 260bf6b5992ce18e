"""A stream of frames as rows, and as text (wire.md, section 6).

Unlike the live decoder this one looks at input that will not go on: what is unfinished at its end is searched once more for frames
within. It holds one frame at the most.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from hypercache.errors import MalformedMessageError
from hypercache.limits import HEADER_BYTES, MAX_FRAME_BYTES
from hypercache.wire.checksum import crc32
from hypercache.wire.extension import decode_extended
from hypercache.wire.header import EXTENDED_VERSION, HEADER, MAGIC
from hypercache.wire.jsonform import extension_fields, fields_of
from hypercache.wire.messages import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypercache.wire.schema import Schema

Row = dict[str, Any]
_DUMP_WIDTH: Final = 16


class Inspection:
    """The rows of one input.

    Args:
        chunks: the input, in pieces of any size.
        schema: the messages that are understood.
        max_frame: the longest payload, in bytes; a header that says more is a bad one.

    Attributes:
        sound: whether every byte so far belonged to a sound frame.
    """

    def __init__(self, chunks: Iterable[bytes], schema: Schema = SCHEMA, *, max_frame: int = MAX_FRAME_BYTES) -> None:
        self._chunks = iter(chunks)
        self._schema = schema
        self._max_frame = max_frame
        self._data = b""
        self._base = 0
        self._ended = False
        self._failed_bytes = 0
        self.sound = True

    def rows(self) -> Iterator[Row]:
        """Yield a row a frame, a bad header, a run of garbage and an unfinished end, ordered by offset."""
        covered = 0
        for start, stop, row in self._items():
            if start > covered:
                self.sound = False
                yield {"offset": covered, "garbage": start - covered}
            if not row.get("valid") or "error" in row:
                self.sound = False
            yield row
            covered = max(covered, stop)
        end = self._base + len(self._data)
        if end > covered:
            self.sound = False
            yield {"offset": covered, "garbage": end - covered}

    def held(self) -> bytes:
        """Return the part of the input that is in memory."""
        return self._data

    def payload_at(self, row: Row) -> bytes:
        """Return the payload of the sound row that was yielded last, for a dump."""
        start = row["offset"] - self._base + HEADER_BYTES
        return self._data[start : start + row["length"]]

    def _items(self) -> Iterator[tuple[int, int, Row]]:
        """Yield (start, end, row) of frames, bad headers and the unfinished end."""
        at = 0
        unfinished = -1
        doubtful: list[tuple[int, int, Row]] = []
        while True:
            at = self._next_magic(at)
            if at < 0:
                break
            whole = self._reach(at, HEADER_BYTES)
            if whole:
                _, version, message_type, length, checksum = HEADER.unpack_from(self._data, at - self._base)
                if length <= self._max_frame:
                    whole = self._reach(at, HEADER_BYTES + length)
            if not whole:
                # The input ends within this candidate; perhaps it was none, and frames are inside.
                unfinished = at if unfinished < 0 else unfinished
                at += len(MAGIC)
                continue
            row: Row = {"offset": at, "version": version, "type": message_type, "name": self._name(message_type)}
            row |= {"length": length, "checksum": checksum}
            stop = self._judge(at, row)
            if not stop:
                at += len(MAGIC)
            elif row["valid"]:
                yield from doubtful
                doubtful, unfinished = [], -1
                yield at, stop, row
                at = stop
            else:
                item = (at, stop, row)
                if unfinished < 0:
                    yield item
                else:
                    doubtful.append(item)
                at += len(MAGIC)
        if unfinished < 0:
            unfinished = self._partial_magic()
        if unfinished >= 0:
            end = self._base + len(self._data)
            yield unfinished, end, {"offset": unfinished, "truncated": True, "available": end - unfinished}

    def _judge(self, at: int, row: Row) -> int:
        """Complete the row of a candidate; return where it ends, 0 where it is mere garbage."""
        length: int = row["length"]
        if length > self._max_frame:
            row |= {"valid": False, "fields": None, "error": f"the length exceeds the limit of {self._max_frame} bytes"}
            return at + HEADER_BYTES
        if self._failed_bytes + length > 4 * self._max_frame + 16 * at:
            return 0
        start = at - self._base + HEADER_BYTES
        payload = self._data[start : start + length]
        computed = crc32(payload)
        if computed != row["checksum"]:
            self._failed_bytes += length
            row |= {"valid": False, "fields": None, "expected": computed}
            return at + HEADER_BYTES
        row["valid"] = True
        self._describe(row, payload)
        return at + HEADER_BYTES + length

    def _describe(self, row: Row, payload: bytes) -> None:
        cls = self._schema.by_type(row["type"])
        try:
            extended = row["version"] == EXTENDED_VERSION
            if extended:
                extension, payload = decode_extended(payload, self._max_frame)
                row["extension"] = extension_fields(extension)
            if cls is None:
                row["fields"] = {"payload": payload.hex()}
            else:
                row["fields"] = fields_of(cls.decode_body(payload) if extended else cls.decode_payload(payload))
        except MalformedMessageError as error:
            row |= {"fields": None, "error": str(error)}

    def _name(self, message_type: int) -> str | None:
        cls = self._schema.by_type(message_type)
        return None if cls is None else cls.__name__

    def _next_magic(self, at: int) -> int:
        """Return the place of the next magic from ``at`` on, -1 where there is none; what lies before it is let go."""
        while True:
            found = self._data.find(MAGIC, at - self._base)
            if found >= 0:
                return self._base + found
            at = max(at, self._base + len(self._data) - len(MAGIC) + 1)
            if not self._more(at):
                return -1

    def _reach(self, at: int, size: int) -> bool:
        """Read until the input holds ``size`` bytes from ``at`` on, letting go of those before; False where it ends sooner."""
        end = at + size
        have = self._base + len(self._data)
        if have >= end:
            return True
        if self._ended:
            return False
        pieces = [self._data[at - self._base :]]
        self._base = at
        while have < end and not self._ended:
            piece = next(self._chunks, None)
            if piece is None:
                self._ended = True
            else:
                pieces.append(piece)
                have += len(piece)
        self._data = b"".join(pieces)
        return have >= end

    def _more(self, keep_from: int) -> bool:
        """Read one piece and let go of what lies before ``keep_from``; False at the end of the input."""
        piece = None if self._ended else next(self._chunks, None)
        if piece is None:
            self._ended = True
            return False
        drop = max(0, keep_from - self._base)
        self._data = self._data[drop:] + piece
        self._base += drop
        return True

    def _partial_magic(self) -> int:
        for length in (3, 2, 1):
            if self._data.endswith(MAGIC[:length]):
                return self._base + len(self._data) - length
        return -1


def as_json(row: Row) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False)


def as_text(row: Row, payload: bytes) -> str:
    """Return a row in the manner of the seed's dump.

    Args:
        row: the row.
        payload: of a sound frame; empty else.
    """
    if "garbage" in row:
        return f"Offset {row['offset']}: {row['garbage']} bytes of garbage\n"
    if "truncated" in row:
        return f"Offset {row['offset']}: truncated, {row['available']} bytes available\n"
    lines = [
        f"Offset: {row['offset']}",
        f"Magic: 0x{int.from_bytes(MAGIC, 'big'):08X} ({MAGIC.decode()})",
        f"Version: {row['version']}",
        f"Type: 0x{row['type']:02X} ({row['name'] or 'Unknown'})",
        f"Length: {row['length']} bytes",
        f"Checksum: 0x{row['checksum']:08X}",
    ]
    if not row["valid"]:
        reason = f"expected 0x{row['expected']:08X}" if "expected" in row else row["error"]
        return "\n".join([*lines, f"Checksum: ❌ Invalid ({reason})", ""])
    lines += ["Checksum: ✅ Valid", "", "Payload (hex):", *hex_dump(payload), "", "Parsed Fields:"]
    if "extension" in row:
        lines += [f"  extension.{name}: {value}" for name, value in row["extension"].items()]
    if row["fields"] is None:
        lines.append(f"  error: {row['error']}")
    else:
        lines += [f"  {name}: {value}" for name, value in row["fields"].items()]
    return "\n".join([*lines, ""])


def hex_dump(data: bytes) -> Iterator[str]:
    """Yield lines of 16 bytes: offset, hex, printable characters."""
    for at in range(0, len(data), _DUMP_WIDTH):
        row = data[at : at + _DUMP_WIDTH]
        halves = "  ".join(row[half : half + 8].hex(" ") for half in (0, 8))
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{at:08x}  {halves:<49} |{shown}|"
