"""The tables of the protocol's documentation, from the declarations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.wire import kinds
from hypercache.wire.messages import SCHEMA

if TYPE_CHECKING:
    from hypercache.wire.schema import Message, Schema

BEGIN: Final = "<!-- messages: begin (made from the declarations) -->"
END: Final = "<!-- messages: end -->"


def message_table(schema: Schema = SCHEMA) -> str:
    """Return the table of all messages in Markdown."""
    lines = ["| type | name | payload, in order | what it is |", "|---|---|---|---|"]
    for cls in schema:
        summary = (cls.__doc__ or "").strip().splitlines()[0]
        lines.append(f"| 0x{cls.TYPE:02X} | {cls.__name__} | {layout(cls) or 'empty'} | {summary} |")
    return "\n".join(lines)


def layout(cls: type[Message]) -> str:
    """Return a declaration in words."""
    return ", ".join(_part(part) for part in cls.PARTS)


def _part(part: kinds.Part) -> str:
    if isinstance(part, kinds.Number):
        return f"{part.name} u{part.size * 8}"
    if isinstance(part, kinds.Flag):
        return f"{part.name} bool"
    if isinstance(part, kinds.TrailingFlag):
        return f"and in version 0x02 {part.name} bool"
    if isinstance(part, kinds.Reserved):
        return f"reserved {part.size}"
    if isinstance(part, kinds.Fixed):
        return f"{part.name} {part.size} bytes"
    if isinstance(part, kinds.Length):
        return f"{part.of} length u{part.size * 8}"
    if isinstance(part, kinds.Count):
        return f"{part.of} count u{part.size * 8}"
    if isinstance(part, kinds.ShortText):
        return f"{part.name} (u8 length, text)"
    if isinstance(part, kinds.Rest):
        return f"{part.name} (to the end)"
    if isinstance(part, kinds.Entries):
        return f"{part.name}, each: {layout(part.entry)}"
    return part.name
