"""The bitmap family: a value as a row of bits, the first byte's highest bit first."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import SYNTAX_ERROR, parse_int, slice_bounds
from hypercache.resp.replies import MINUS_ONE, ONE, ZERO, integer
from hypercache.resp.table import command

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.resp.session import Session

_GROUP: Final = "bitmap"
_KEY: Final = (1, 1, 1)
_BAD_OFFSET: Final = "bit offset is not an integer or out of range"
_CHUNK_BYTES: Final = 1 << 16
"""Long values are worked through in pieces that stay in the processor's cache, and that need little memory beside them."""

_DULL: Final = (b"\xff" * _CHUNK_BYTES, bytes(_CHUNK_BYTES))
"""For either bit: a piece that does not hold it."""


def parse_bit_offset(session: Session, argument: bytes) -> int:
    """Return a bit's place within the longest value.

    Raises:
        CommandError: it is no integer, negative, or behind the longest value's end.
    """
    offset = parse_int(argument, _BAD_OFFSET)
    if not 0 <= offset >> 3 < session.server.value_max_bytes:
        raise CommandError(f"ERR {_BAD_OFFSET}")
    return offset


@command(
    "setbit",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group=_GROUP,
    since="2.2.0",
    summary="Sets or clears the bit at offset of the string value.",
)
def setbit(session: Session, args: list[bytes]) -> bytes:
    """Set a bit; answer what it was."""
    offset = parse_bit_offset(session, args[2])
    if args[3] not in (b"0", b"1"):
        raise CommandError("ERR bit is not an integer or out of range")
    store, key = session.store, args[1]
    place, mask = offset >> 3, 0x80 >> (offset & 7)
    value = store.peek(key)
    length = 0 if value is None else len(value)
    byte = value[place] if value is not None and place < length else 0
    changed = byte | mask if args[3] == b"1" else byte & ~mask
    if changed == byte and place < length:
        store.touch(key)
    else:
        view = memoryview(value or b"")
        padding = bytes(max(0, place - length))
        store.replace(key, b"".join((view[:place], padding, bytes((changed,)), view[place + 1 :])))
    return ONE if byte & mask else ZERO


@command("getbit", arity=3, flags="readonly fast", keys=_KEY, group=_GROUP, since="2.2.0", summary="Returns a bit value by offset.")
def getbit(session: Session, args: list[bytes]) -> bytes:
    """Answer a bit; behind the value's end it is 0."""
    offset = parse_bit_offset(session, args[2])
    value = session.store.get(args[1]) or b""
    place = offset >> 3
    return ONE if place < len(value) and value[place] & 0x80 >> (offset & 7) else ZERO


def _counts_bits(args: list[bytes], at: int) -> bool:
    """Return whether a range counts bits, not bytes."""
    if len(args) <= at:
        return False
    unit = args[at].upper()
    if unit not in (b"BIT", b"BYTE"):
        raise CommandError(SYNTAX_ERROR)
    return unit == b"BIT"


def _count_ones(value: bytes, low: int, high: int) -> int:
    """Count the ones among the bits from ``low`` to before ``high``."""
    if low >= high:
        return 0
    first, last = low >> 3, (high + 7) >> 3
    view = memoryview(value)[first:last]
    count = sum([int.from_bytes(view[at : at + _CHUNK_BYTES], "big").bit_count() for at in range(0, len(view), _CHUNK_BYTES)])
    before = value[first] >> 8 - (low & 7)
    behind = value[last - 1] & (1 << (-high & 7)) - 1
    return count - before.bit_count() - behind.bit_count()


@command(
    "bitcount",
    arity=-2,
    flags="readonly",
    keys=_KEY,
    group=_GROUP,
    since="2.6.0",
    summary="Counts the number of set bits in a string.",
)
def bitcount(session: Session, args: list[bytes]) -> bytes:
    """Count ones: ``BITCOUNT key [start end [BYTE|BIT]]``."""
    value = session.store.get(args[1])
    if value is None:
        return ZERO
    if len(args) == 2:
        if len(value) <= _CHUNK_BYTES:
            return integer(int.from_bytes(value, "big").bit_count())
        return integer(_count_ones(value, 0, len(value) * 8))
    if len(args) not in (4, 5):
        raise CommandError(SYNTAX_ERROR)
    start, end = parse_int(args[2]), parse_int(args[3])
    if start < 0 and end < 0 and start > end:
        # Redis answers before it reads the unit.
        return ZERO
    by_bits = _counts_bits(args, 4)
    low, high = slice_bounds(start, end, len(value) * 8 if by_bits else len(value))
    if not by_bits:
        low, high = low * 8, high * 8
    return integer(_count_ones(value, low, high))


@command(
    "bitpos",
    arity=-3,
    flags="readonly",
    keys=_KEY,
    group=_GROUP,
    since="2.8.7",
    summary="Finds the first set or clear bit in a string.",
)
def bitpos(session: Session, args: list[bytes]) -> bytes:
    """Find a bit: ``BITPOS key bit [start [end [BYTE|BIT]]]``."""
    bit = parse_int(args[2])
    if bit not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    value = session.store.get(args[1])
    if value is None:
        return MINUS_ONE if bit else ZERO
    if len(args) > 6:
        raise CommandError(SYNTAX_ERROR)
    start = parse_int(args[3]) if len(args) > 3 else 0
    by_bits = False
    end = -1
    if len(args) > 4:
        by_bits = _counts_bits(args, 5)
        end = parse_int(args[4])
    length = len(value) * 8 if by_bits else len(value)
    # Unlike elsewhere, two ends before the value's start mean its first place.
    low = max(0, start + length if start < 0 else start)
    high = min(max(0, end + length if end < 0 else end), length - 1) + 1
    if low >= high:
        return MINUS_ONE
    if not by_bits:
        low, high = low * 8, high * 8
    found = _find(value, bit, low, high)
    if found < 0 and not bit and len(args) <= 4:
        # Without an end the value counts as followed by zeros.
        return integer(len(value) * 8)
    return integer(found)


def _find(value: bytes, bit: int, low: int, high: int) -> int:
    """Return the place of the first such bit from ``low`` to before ``high``, -1 where there is none."""
    flip = 0 if bit else 0xFF
    at, last = low >> 3, (high + 7) >> 3
    # The first byte alone may count in part only; behind the last bit a find is as good as none.
    byte = (value[at] ^ flip) & 0xFF >> (low & 7)
    if not byte:
        at += 1
        dull = _DULL[bit]
        while at + _CHUNK_BYTES <= last and value.startswith(dull, at):
            at += _CHUNK_BYTES
        end = min(at + _CHUNK_BYTES, last)
        rest = value[at:end].lstrip(dull[:1])
        if not rest:
            return -1
        at = end - len(rest)
        byte = rest[0] ^ flip
    place = at * 8 + 8 - byte.bit_length()
    return place if place < high else -1


_OPERATIONS: Final[dict[bytes, Callable[[int, int], int]]] = {
    b"AND": int.__and__,
    b"OR": int.__or__,
    b"XOR": int.__xor__,
}


@command(
    "bitop",
    arity=-4,
    flags="write denyoom",
    keys=(2, -1, 1),
    group=_GROUP,
    since="2.6.0",
    summary="Performs bitwise operations on multiple strings.",
)
def bitop(session: Session, args: list[bytes]) -> bytes:
    """Combine values: ``BITOP AND|OR|XOR|NOT destination key …``; answer the result's length."""
    operation = args[1].upper()
    if operation != b"NOT" and operation not in _OPERATIONS:
        raise CommandError(SYNTAX_ERROR)
    if operation == b"NOT" and len(args) != 4:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    values = [session.store.get(key) or b"" for key in args[3:]]
    length = max(map(len, values))
    if not length:
        session.store.delete(args[2])
        return ZERO
    combine = _OPERATIONS.get(operation)
    views = [memoryview(value) for value in values]
    pieces = []
    for at in range(0, length, _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, length - at)
        # A value that is too short is followed by zeros.
        numbers = [int.from_bytes(piece, "big") << 8 * (size - len(piece)) for piece in [view[at : at + size] for view in views]]
        number = numbers[0] ^ (1 << size * 8) - 1 if combine is None else reduce(combine, numbers)
        pieces.append(number.to_bytes(size, "big"))
    session.store.put(args[2], b"".join(pieces))
    return integer(length)
