"""Arguments as Redis reads them: integers, long doubles, expiry options."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from hypercache.errors import CommandError

INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)
NOT_AN_INTEGER: Final = "value is not an integer or out of range"
SYNTAX_ERROR: Final = "ERR syntax error"

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT: Final = re.compile(
    rb"[+-]?(?:inf(?:inity)?|0x[0-9a-f]+\.?[0-9a-f]*(?:p[+-]?[0-9]{1,4})?|[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?)",
    re.IGNORECASE,
)
_FLOAT_MAX_BYTES: Final = 5 * 1024
_MANTISSA_BITS: Final = 64
_LARGEST_EXPONENT: Final = 16384
_DECIMALS: Final = 17


def parse_int(argument: bytes, refusal: str = NOT_AN_INTEGER) -> int:
    """Return a signed 64-bit integer in its canonical form.

    Raises:
        CommandError: ``ERR `` and ``refusal``.
    """
    if _INTEGER.fullmatch(argument):
        number = int(argument)
        if INT64_MIN <= number <= INT64_MAX:
            return number
    raise CommandError(f"ERR {refusal}")


def is_integer(value: bytes) -> bool:
    """Say whether a value is the canonical text of a signed 64-bit integer."""
    return _INTEGER.fullmatch(value) is not None and INT64_MIN <= int(value) <= INT64_MAX


def parse_float(argument: bytes) -> Fraction:
    """Return a number as the x87 long double that Redis computes with, exactly.

    Raises:
        CommandError: it is no number, or an infinite one.
    """
    if len(argument) > _FLOAT_MAX_BYTES or not _FLOAT.fullmatch(argument):
        raise CommandError("ERR value is not a valid float")
    text = argument.lower()
    if b"x" in text:
        return _hex_float(text)
    if b"inf" in text:
        raise CommandError("ERR increment would produce NaN or Infinity")
    mantissa, _, exponent = text.partition(b"e")
    if exponent and not -5000 <= int(exponent) <= 5000:
        if int(exponent) < 0 or not mantissa.strip(b"+-0."):
            return Fraction(0)
        raise CommandError("ERR value is not a valid float")
    return _parsed(Fraction(text.decode()))


def _hex_float(text: bytes) -> Fraction:
    mantissa, _, exponent = text.decode().partition("p")
    whole, _, decimals = mantissa.partition(".")
    number = Fraction(int(whole + decimals, 16), 16 ** len(decimals)) * Fraction(2) ** int(exponent or 0)
    return _parsed(number)


def _parsed(number: Fraction) -> Fraction:
    try:
        return long_double(number)
    except CommandError:
        raise CommandError("ERR value is not a valid float") from None


def long_double(number: Fraction) -> Fraction:
    """Round to a mantissa of 64 bits, ties to even.

    Raises:
        CommandError: the number is too large for a long double.
    """
    if not number:
        return number
    size = abs(number)
    exponent = size.numerator.bit_length() - size.denominator.bit_length() - _MANTISSA_BITS
    scale = Fraction(2) ** exponent
    while size / scale >= 1 << _MANTISSA_BITS:
        exponent += 1
        scale *= 2
    if exponent + _MANTISSA_BITS > _LARGEST_EXPONENT:
        raise CommandError("ERR increment would produce NaN or Infinity")
    return Fraction(round(number / scale)) * scale


def format_float(number: Fraction) -> bytes:
    """Return a number with at most 17 decimals and no exponent, as Redis prints a long double."""
    scaled = round(number * 10**_DECIMALS)
    whole, decimals = divmod(abs(scaled), 10**_DECIMALS)
    text = f"{whole}.{decimals:0{_DECIMALS}d}".rstrip("0").rstrip(".")
    return (f"-{text}" if scaled < 0 else text).encode()


def absolute_deadline(amount: int, *, seconds: bool, base_ms: int, name: str) -> int:
    """Return an expiry option as Unix milliseconds.

    Args:
        amount: as given.
        seconds: whether it counts seconds, else milliseconds.
        base_ms: what it counts from: now, or 0 where it is absolute.
        name: the command, for the error.

    Raises:
        CommandError: it is not positive or overflows 64 bits.
    """
    deadline = amount * 1000 if seconds else amount
    if amount <= 0 or deadline > INT64_MAX - base_ms:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    return deadline + base_ms


EXPIRY_UNITS: Final = {b"EX": (True, True), b"PX": (False, True), b"EXAT": (True, False), b"PXAT": (False, False)}
"""Option to (counts seconds, counts from now)."""


def option_deadline(option: bytes, argument: bytes, now_ms: int, name: str) -> int:
    """Return what an EX, PX, EXAT or PXAT option means, in Unix milliseconds.

    Raises:
        CommandError: the argument is no integer, or no valid time.
    """
    seconds, relative = EXPIRY_UNITS[option]
    return absolute_deadline(parse_int(argument), seconds=seconds, base_ms=now_ms if relative else 0, name=name)


def slice_bounds(start: int, end: int, length: int) -> tuple[int, int]:
    """Return a Redis range, inclusive and perhaps negative, as a Python slice's bounds; empty where it holds nothing."""
    if start < 0 and end < 0 and start > end:
        return 0, 0
    start = max(0, start + length) if start < 0 else start
    end = max(0, end + length) if end < 0 else end
    end = min(end, length - 1)
    return (0, 0) if start > end else (start, end + 1)
