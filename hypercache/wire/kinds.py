"""The kinds of field that a payload is made of (wire.md, section 1).

A declaration lists its parts in the order of the wire. A part with a length of its own (`ShortText`) stands alone; bytes whose
length was announced earlier (`Blob`, `Text`) follow their `Length` part by name.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a payload.

    Attributes:
        name: the field's name; empty where the part is no field (a length, a count, reserved bytes).
    """

    name: str = ""


class Number(Part, frozen=True):
    """An unsigned integer of 1, 2, 4 or 8 bytes."""

    size: int


class Flag(Part, frozen=True):
    """A boolean of one byte: sent as 0 or 1, read as non-zero is true."""


class Reserved(Part, frozen=True):
    """Bytes that are sent as zero and ignored on receipt."""

    size: int


class Fixed(Part, frozen=True):
    """Raw bytes of a fixed number."""

    size: int


class Length(Part, frozen=True):
    """The length, in bytes, of the field ``of`` that stands further on."""

    of: str
    size: int


class Blob(Part, frozen=True):
    """Raw bytes whose `Length` came earlier."""


class Text(Part, frozen=True):
    """UTF-8 whose `Length` came earlier."""


class ShortText(Part, frozen=True):
    """A length of one byte, then UTF-8."""


class Rest(Part, frozen=True):
    """Raw bytes up to the payload's end."""


class Count(Part, frozen=True):
    """How many entries the list ``of`` further on has."""

    of: str
    size: int


class Entries(Part, frozen=True):
    """A list whose `Count` came earlier; each entry is a message class of its own, without a type."""

    entry: type[Any]


FIXED_KINDS: Final = (Number, Flag, Reserved, Fixed, Length, Count)
"""The kinds whose size the declaration gives; they stand before all others."""


class TrailingFlag(Part, frozen=True):
    """A boolean of one byte behind the layout, in version 0x02 frames alone: false where it is missing."""


STRUCT_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def u8(name: str) -> Number:
    """Return an unsigned byte."""
    return Number(name=name, size=1)


def u16(name: str) -> Number:
    """Return an unsigned integer of 16 bits."""
    return Number(name=name, size=2)


def u32(name: str) -> Number:
    """Return an unsigned integer of 32 bits."""
    return Number(name=name, size=4)


def u64(name: str) -> Number:
    """Return an unsigned integer of 64 bits."""
    return Number(name=name, size=8)


def flag(name: str) -> Flag:
    """Return a boolean."""
    return Flag(name=name)


def reserved(size: int) -> Reserved:
    """Return reserved bytes."""
    return Reserved(size=size)


def fixed(name: str, size: int) -> Fixed:
    """Return raw bytes of a fixed number."""
    return Fixed(name=name, size=size)


def length(of: str, size: int) -> Length:
    """Return the announced length of a field."""
    return Length(of=of, size=size)


def blob(name: str) -> Blob:
    """Return raw bytes of an announced length."""
    return Blob(name=name)


def text(name: str) -> Text:
    """Return UTF-8 of an announced length."""
    return Text(name=name)


def short_text(name: str) -> ShortText:
    """Return UTF-8 after its length of one byte."""
    return ShortText(name=name)


def rest(name: str) -> Rest:
    """Return raw bytes up to the end."""
    return Rest(name=name)


def count(of: str, size: int) -> Count:
    """Return the number of entries of a list."""
    return Count(of=of, size=size)


def entries(name: str, entry: type[Any]) -> Entries:
    """Return a list of an announced number of entries."""
    return Entries(name=name, entry=entry)


def trailing_flag(name: str) -> TrailingFlag:
    """Return a boolean behind the layout, which version 0x01 does not carry."""
    return TrailingFlag(name=name)
