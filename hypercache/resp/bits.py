"""The bitmap family: a value as a row of bits, the first byte's highest bit first."""

from __future__ import annotations

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


def parse_bit_offset(session: Session, argument: bytes) -> int:
    """Return a bit's place within the longest value.

    Raises:
        CommandError: it is no integer, negative, or behind the longest value's end.
    """
    offset = parse_int(argument, _BAD_OFFSET)
    if not 0 <= offset >> 3 < session.server.value_max_bytes or offset < 0:
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
    place, mask = offset >> 3, 0x80 >> (offset & 7)
    value = bytearray(session.store.get(args[1]) or b"")
    if place >= len(value):
        value.extend(bytes(place + 1 - len(value)))
    old = value[place] & mask
    value[place] = value[place] | mask if args[3] == b"1" else value[place] & ~mask
    session.store.replace(args[1], bytes(value))
    return ONE if old else ZERO


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


def _mask_ends(value: bytes, low: int, high: int) -> tuple[bytes, int, int]:
    """Return the bytes that hold the bits from ``low`` to before ``high``, and how many bits before and behind do not count."""
    first, last = low >> 3, (high + 7) >> 3
    return value[first:last], low & 7, -high & 7


def _count_ones(chunk: bytes, before: int, behind: int) -> int:
    if not chunk:
        return 0
    number = int.from_bytes(chunk, "big")
    if before:
        number &= (1 << (len(chunk) * 8 - before)) - 1
    return (number >> behind).bit_count()


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
        return integer(int.from_bytes(value, "big").bit_count())
    if len(args) not in (4, 5):
        raise CommandError(SYNTAX_ERROR)
    start, end = parse_int(args[2]), parse_int(args[3])
    by_bits = _counts_bits(args, 4)
    low, high = slice_bounds(start, end, len(value) * 8 if by_bits else len(value))
    if not by_bits:
        low, high = low * 8, high * 8
    return integer(_count_ones(*_mask_ends(value, low, high)))


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
    chunk, before, behind = _mask_ends(value, low, high)
    # Whole bytes that cannot hold the bit are skipped without a look at their bits.
    dull = b"\xff" if not bit else b"\0"
    first = low >> 3
    if before or behind:
        number = int.from_bytes(chunk, "big")
        if not bit:
            number = ~number
        number &= (1 << (len(chunk) * 8 - before)) - 1
        number = number >> behind << behind
        return first * 8 + len(chunk) * 8 - number.bit_length() if number else -1
    rest = chunk.lstrip(dull)
    if not rest:
        return -1
    byte = rest[0] if bit else rest[0] ^ 0xFF
    return (first + len(chunk) - len(rest)) * 8 + 8 - byte.bit_length()


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
    numbers = [int.from_bytes(value.ljust(length, b"\0"), "big") for value in values]
    result = numbers[0]
    if operation == b"NOT":
        result ^= (1 << length * 8) - 1
    for number in numbers[1:]:
        result = _OPERATIONS[operation](result, number)
    session.store.put(args[2], result.to_bytes(length, "big"))
    return integer(length)
