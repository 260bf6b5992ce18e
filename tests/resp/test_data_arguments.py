"""Integers, long doubles, options and ranges are read as Redis reads them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.errors import CommandError
from hypercache.resp.arguments import (
    GETEX_OPTIONS,
    INT64_MAX,
    INT64_MIN,
    SET_OPTIONS,
    absolute_deadline,
    add_floats,
    is_integer,
    parse_float,
    parse_int,
    parse_int32,
    set_options,
    slice_bounds,
)


@given(st.integers(INT64_MIN, INT64_MAX))
def test_the_canonical_text_of_every_64_bit_integer_is_read(number: int) -> None:
    assert parse_int(b"%d" % number) == number
    assert is_integer(b"%d" % number)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"+1", b" 1", b"1 ", b"01", b"-0", b"--1", b"1_0", b"1.0", b"0x1", b"1\n", b"1\0", b"-", "١".encode()),
        *(b"%d" % (INT64_MAX + 1), b"%d" % (INT64_MIN - 1), b"9" * 5000),
    ],
)
def test_any_other_text_is_no_integer(text: bytes) -> None:
    assert not is_integer(text)
    with pytest.raises(CommandError, match=r"^ERR value is not an integer or out of range$"):
        parse_int(text)


def test_the_number_of_a_database_has_32_bits() -> None:
    assert parse_int32(b"2147483647") == 2147483647
    with pytest.raises(CommandError, match=r"^ERR value is out of range, value must between -2147483648 and 2147483647$"):
        parse_int32(b"2147483648")


def exact(text: bytes) -> Fraction:
    number = parse_float(text)
    assert number is not None
    return number[0] * Fraction(2) ** number[1]


@given(st.integers(-(2**64) + 1, 2**64 - 1), st.integers(-200, 200))
def test_a_number_of_64_bits_is_held_exactly(mantissa: int, exponent: int) -> None:
    sign = "-" if mantissa < 0 else ""
    assert exact(f"{sign}0x{abs(mantissa):x}p{exponent}".encode()) == mantissa * Fraction(2) ** exponent


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=12))
def test_a_decimal_is_rounded_to_the_nearest_long_double(number: object) -> None:
    wanted = Fraction(str(number))
    got = exact(str(number).encode())
    assert abs(got - wanted) * 2**64 <= abs(wanted)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b".", b"-", b"e5", b"1e", b"1e+", b" 1", b"1 ", b"1,5", b"0x", b"0x.", b"0x1p", b"1p3", b"nan", b"1_0", b"infin"),
        *(b"1e4933", b"1e-5000", b"0x1p16384", b"0x1p-16446", b"1e" + b"9" * 400, b"0" * 5120),
    ],
)
def test_what_strtold_refuses_or_cannot_hold_is_no_float(text: bytes) -> None:
    with pytest.raises(CommandError, match=r"^ERR value is not a valid float$"):
        parse_float(text)


@pytest.mark.parametrize("text", [b"inf", b"-INF", b"+Infinity"])
def test_infinity_is_read_but_no_sum_is_made_of_it(text: bytes) -> None:
    assert parse_float(text) is None
    with pytest.raises(CommandError, match=r"^ERR increment would produce NaN or Infinity$"):
        add_floats(b"1", text)


@pytest.mark.parametrize(
    ("first", "second", "total"),
    [
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"3", b"0.000000000000000001", b"3"),
        (b"0", b"-1e-18", b"0"),
        (b"0", b"-1e-17", b"-0.00000000000000001"),
        (b"0x10", b"-.5", b"15.5"),
        (b"0" * 5119, b"1e" + b"0" * 4500 + b"1", b"10"),
        (b"9223372036854775807", b"1", b"9223372036854775808"),
        (b"18446744073709551616", b"1", b"18446744073709551616"),
    ],
)
def test_a_sum_has_17_decimals_at_most_and_no_exponent(first: bytes, second: bytes, total: bytes) -> None:
    assert add_floats(first, second) == total


def test_a_sum_may_have_all_the_4932_digits_of_a_long_double() -> None:
    total = add_floats(b"1e4932", b"1")
    assert len(total) == 4933
    assert total.startswith(b"10000000000000000000")
    with pytest.raises(CommandError, match="NaN or Infinity"):
        add_floats(b"1.1e4932", b"1.1e4932")


@pytest.mark.parametrize("amount", [0, -1, INT64_MIN, INT64_MAX // 1000 + 1, INT64_MAX])
def test_a_lifetime_that_is_not_positive_or_overflows_is_refused(amount: int) -> None:
    with pytest.raises(CommandError, match=r"^ERR invalid expire time in 'set' command$"):
        absolute_deadline(amount, seconds=True, base_ms=1000, name="set")


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("", (b"", False, b"", b"")),
        ("nx get ex 10", (b"NX", True, b"EX", b"10")),
        ("PXAT 5 xx", (b"XX", False, b"PXAT", b"5")),
        ("keepttl", (b"", False, b"KEEPTTL", b"")),
        ("ex 1 ex 2", (b"", False, b"EX", b"2")),
        ("get get nx nx", (b"NX", True, b"", b"")),
    ],
)
def test_options_come_in_any_order_and_the_last_of_a_kind_counts(words: str, read: tuple[bytes, bool, bytes, bytes]) -> None:
    assert set_options([b"SET", b"k", b"v", *words.encode().split()], 3, SET_OPTIONS) == read


@pytest.mark.parametrize("words", ["nx xx", "ex 1 px 1", "keepttl ex 1", "ex", "persist", "bad", "ex 1 keepttl", "exat 1 pxat"])
def test_options_that_contradict_or_lack_something_are_a_syntax_error(words: str) -> None:
    with pytest.raises(CommandError, match=r"^ERR syntax error$"):
        set_options([b"SET", b"k", b"v", *words.encode().split()], 3, SET_OPTIONS)


@pytest.mark.parametrize("words", ["nx", "get", "keepttl", "persist ex 1", "ex 1 persist"])
def test_getex_takes_no_option_of_set_but_the_lifetimes(words: str) -> None:
    with pytest.raises(CommandError, match=r"^ERR syntax error$"):
        set_options([b"GETEX", b"k", *words.encode().split()], 2, GETEX_OPTIONS)


@given(st.integers(-12, 12), st.integers(-12, 12), st.integers(0, 8))
def test_a_range_is_inclusive_and_counts_from_the_end_where_it_is_negative(start: int, end: int, length: int) -> None:
    low, high = slice_bounds(start, end, length)
    first = max(0, start + length if start < 0 else start)
    last = max(0, end + length if end < 0 else end)
    empty = start < 0 and end < 0 and start > end
    assert list(range(length))[low:high] == [place for place in range(length) if first <= place <= last and not empty]
