"""Arguments as Redis reads them: integers, long doubles, expiry options."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from hypercache.errors import CommandError

INT64_MAX: Final = (1 << 63) - 1
INT64_MIN: Final = -(1 << 63)
INT32_MAX: Final = (1 << 31) - 1
INT32_MIN: Final = -(1 << 31)
NOT_AN_INTEGER: Final = "value is not an integer or out of range"
SYNTAX_ERROR: Final = "ERR syntax error"

_INT64_MAX_BYTES: Final = len(str(INT64_MIN))

_FLOAT: Final = re.compile(
    rb"([+-]?)(?:"
    rb"(inf(?:inity)?)"
    rb"|(0x[0-9a-f]*\.?[0-9a-f]*)(?:p([+-]?[0-9]+))?"
    rb"|([0-9]*)(?:\.([0-9]*))?(?:e([+-]?[0-9]+))?"
    rb")",
    re.IGNORECASE,
)
_FLOAT_MAX_BYTES: Final = 5 * 1024 - 1
_NOT_A_FLOAT: Final = "ERR value is not a valid float"
_MANTISSA_BITS: Final = 64
_LARGEST_EXPONENT: Final = 16384
_SMALLEST_EXPONENT: Final = -16445
_EXPONENT_MAX: Final = 1 << 16
"""No text of `_FLOAT_MAX_BYTES` has so many digits before or after its point that a larger exponent leaves it within range."""
_DECIMALS: Final = 17


def _canonical(text: bytes) -> int | None:
    """Return the signed 64-bit integer that ``text`` is the one canonical form of, None where it is none."""
    # Writing the number back is quicker than a regular expression, and leaves no room for the spaces, signs and underscores that
    # `int` takes.
    if len(text) > _INT64_MAX_BYTES:
        return None
    try:
        number = int(text)
    except ValueError:
        return None
    return number if INT64_MIN <= number <= INT64_MAX and b"%d" % number == text else None


def parse_int(argument: bytes, refusal: str = NOT_AN_INTEGER) -> int:
    """Return a signed 64-bit integer in its canonical form.

    Raises:
        CommandError: ``ERR `` and ``refusal``.
    """
    number = _canonical(argument)
    if number is None:
        raise CommandError(f"ERR {refusal}")
    return number


def parse_int32(argument: bytes) -> int:
    """Return a signed 32-bit integer, as which Redis reads the number of a database.

    Raises:
        CommandError: it is no integer, or a wider one.
    """
    number = parse_int(argument)
    if not INT32_MIN <= number <= INT32_MAX:
        raise CommandError(f"ERR value is out of range, value must between {INT32_MIN} and {INT32_MAX}")
    return number


def is_integer(value: bytes) -> bool:
    """Say whether a value is the canonical text of a signed 64-bit integer."""
    return _canonical(value) is not None


LongDouble = tuple[int, int]
"""An x87 long double, with which Redis computes INCRBYFLOAT, exactly: a mantissa of 64 bits with a sign, a binary exponent."""


def parse_float(argument: bytes) -> LongDouble | None:
    """Return a number as strtold reads it; None for an infinite one.

    Raises:
        CommandError: it is no number, or one too large or too small for a long double.
    """
    match = _FLOAT.fullmatch(argument) if len(argument) <= _FLOAT_MAX_BYTES else None
    if match is None:
        raise CommandError(_NOT_A_FLOAT)
    sign, infinite, hexadecimal, hex_exponent, whole, decimals, exponent = match.groups(b"")
    if infinite:
        return None
    if hexadecimal:
        whole, _, decimals = hexadecimal[2:].partition(b".")
    digits = whole + decimals
    if not digits:
        raise CommandError(_NOT_A_FLOAT)
    if not digits.strip(b"0"):
        return 0, 0
    if hexadecimal:
        rounded = _rounded(int(digits, 16), 1, _parse_exponent(hex_exponent) - 4 * len(decimals))
    else:
        # Through Decimal, for `int` refuses texts of more than 4,300 digits.
        number = int(Decimal(digits.decode()))
        power = _parse_exponent(exponent) - len(decimals)
        rounded = _rounded(number * 10**power, 1) if power >= 0 else _rounded(number, 10**-power)
    if rounded is None or not rounded[0]:
        raise CommandError(_NOT_A_FLOAT)
    return (-rounded[0], rounded[1]) if sign == b"-" else rounded


def _parse_exponent(text: bytes) -> int:
    """Return a number's exponent; one beyond `_EXPONENT_MAX` is cut to it, for the number is out of range either way."""
    digits = text.lstrip(b"+-").lstrip(b"0")
    size = min(int(digits or b"0"), _EXPONENT_MAX) if len(digits) <= _INT64_MAX_BYTES else _EXPONENT_MAX
    return -size if text[:1] == b"-" else size


def _divided(numerator: int, denominator: int, shift: int) -> int:
    """Return the quotient over two to the ``shift``, ties to even."""
    if shift > 0:
        denominator <<= shift
    else:
        numerator <<= -shift
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient & 1))


def _rounded(numerator: int, denominator: int, exponent: int = 0) -> LongDouble | None:
    """Round a positive fraction times two to the ``exponent`` to a long double; None where it is too large for one."""
    shift = max(numerator.bit_length() - denominator.bit_length() - _MANTISSA_BITS, _SMALLEST_EXPONENT - exponent)
    mantissa = _divided(numerator, denominator, shift)
    if mantissa >> _MANTISSA_BITS:
        shift += 1
        mantissa = _divided(numerator, denominator, shift)
    exponent += shift
    return None if mantissa.bit_length() + exponent > _LARGEST_EXPONENT else (mantissa, exponent)


def add_floats(first: bytes, second: bytes) -> bytes:
    """Return the sum of two numbers with at most 17 decimals and no exponent, as Redis prints a long double.

    Raises:
        CommandError: either is no number, or the sum is none.
    """
    augend, addend = parse_float(first), parse_float(second)
    exact = 0
    total: LongDouble | None = None
    if augend is not None and addend is not None:
        exponent = min(augend[1], addend[1])
        exact = (augend[0] << augend[1] - exponent) + (addend[0] << addend[1] - exponent)
        total = _rounded(abs(exact), 1, exponent) if exact else (0, 0)
    if total is None:
        raise CommandError("ERR increment would produce NaN or Infinity")
    scaled = _divided(total[0] * 10**_DECIMALS, 1, -total[1])
    # Through Decimal, for `str` refuses integers of more than 4,300 digits.
    digits = str(Decimal(scaled)).rjust(_DECIMALS + 1, "0")
    text = f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}".rstrip("0").rstrip(".")
    return (f"-{text}" if exact < 0 and scaled else text).encode()


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


SET_OPTIONS: Final = frozenset((b"NX", b"XX", b"GET", b"KEEPTTL", *EXPIRY_UNITS))
GETEX_OPTIONS: Final = frozenset((b"PERSIST", *EXPIRY_UNITS))


def set_options(args: list[bytes], at: int, allowed: frozenset[bytes]) -> tuple[bytes, bool, bytes, bytes]:
    """Read the options of SET and GETEX.

    Args:
        args: the command's arguments.
        at: where the options start.
        allowed: `SET_OPTIONS` or `GETEX_OPTIONS`.

    Returns:
        NX or XX or nothing; whether GET is there; EX, PX, EXAT, PXAT, KEEPTTL, PERSIST or nothing; its argument. One that is given
        twice counts as it was given last.

    Raises:
        CommandError: an option is unknown, lacks its argument, or contradicts another.
    """
    condition = expiry = argument = b""
    answers_old = False
    while at < len(args):
        option = args[at].upper()
        at += 1
        if option not in allowed:
            raise CommandError(SYNTAX_ERROR)
        if option == b"GET":
            answers_old = True
        elif option in (b"NX", b"XX"):
            if condition not in (b"", option):
                raise CommandError(SYNTAX_ERROR)
            condition = option
        else:
            if expiry not in (b"", option):
                raise CommandError(SYNTAX_ERROR)
            expiry = option
            if option in EXPIRY_UNITS:
                if at == len(args):
                    raise CommandError(SYNTAX_ERROR)
                argument = args[at]
                at += 1
    return condition, answers_old, expiry, argument


def slice_bounds(start: int, end: int, length: int) -> tuple[int, int]:
    """Return a Redis range, inclusive and perhaps negative, as a Python slice's bounds; empty where it holds nothing."""
    if start < 0 and end < 0 and start > end:
        return 0, 0
    start = max(0, start + length) if start < 0 else start
    end = max(0, end + length) if end < 0 else end
    end = min(end, length - 1)
    return (0, 0) if start > end else (start, end + 1)
