"""Glob patterns match what Redis' own function matches, and cannot run away."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercache.errors import CommandError
from hypercache.limits import GLOB_PATTERN_MAX_BYTES
from hypercache.resp.glob import Glob


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def class_at(pattern: bytes, byte: int) -> tuple[bool, int]:
    """Read a class as Redis reads it: whether it takes the byte, and where what follows starts."""
    at = 1
    negated = pattern[at : at + 1] == b"^"
    at += negated
    found = False
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and len(pattern) - at >= 2:
            at += 1
            found |= pattern[at] == byte
        elif len(pattern) - at >= 3 and pattern[at + 1] == ord("-"):
            low, high = sorted((signed(pattern[at]), signed(pattern[at + 2])))
            found |= low <= signed(byte) <= high
            at += 2
        else:
            found |= pattern[at] == byte
        at += 1
    return found != negated, at + 1


def reference(pattern: bytes, text: bytes) -> bool:
    """Match by plain backtracking."""
    if pattern == b"*":
        return True
    while pattern and text:
        head = pattern[:1]
        if head == b"*":
            rest = pattern.lstrip(b"*")
            return not rest or any(reference(rest, text[at:]) for at in range(len(text)))
        if head == b"[":
            takes, end = class_at(pattern, text[0])
            if not takes:
                return False
            pattern, text = pattern[end:], text[1:]
            continue
        if head == b"\\" and len(pattern) >= 2:
            pattern = pattern[1:]
            head = b""
        if head != b"?" and pattern[0] != text[0]:
            return False
        pattern, text = pattern[1:], text[1:]
        if not text:
            pattern = pattern.lstrip(b"*")
    return not pattern and not text


BYTES = st.sampled_from([bytes((byte,)) for byte in b"ab*?[]^-\\\x00\x7f\x80\xff\n"])
PATTERNS = st.lists(BYTES, max_size=9).map(b"".join)
TEXTS = st.lists(st.sampled_from([b"a", b"b", b"]", b"-", b"\\", b"*", b"\x00", b"\x80", b"\xff", b"\n"]), max_size=7).map(b"".join)


@given(PATTERNS, TEXTS)
def test_a_pattern_matches_what_plain_backtracking_matches(pattern: bytes, text: bytes) -> None:
    assert bool(Glob(pattern).matches(text)) == reference(pattern, text)


@given(PATTERNS, TEXTS, st.integers(0, 3))
def test_a_pattern_too_long_for_an_expression_matches_the_same(pattern: bytes, text: bytes, stars: int) -> None:
    long_pattern = b"a" * 300 + b"*" * stars + pattern
    assert bool(Glob(long_pattern).matches(b"a" * 300 + text)) == reference(b"a" + b"*" * stars + pattern, b"a" + text)


@pytest.mark.parametrize(
    ("pattern", "taken", "refused"),
    [
        (b"h[^e]llo", [b"hallo", b"h\nllo"], [b"hello", b"hllo"]),
        (b"[c-a]", [b"a", b"b", b"c"], [b"d", b"-"]),
        (b"[a-", [b"a", b"-"], [b"b"]),
        (b"[a", [b"a"], [b"[a", b"["]),
        (b"a[", [], [b"a", b"a["]),
        (b"[^", [b"a", b"\x00"], [b"", b"aa"]),
        (b"[]", [], [b"", b"]", b"[]"]),
        (b"[^]x", [b"ax"], [b"x"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"\\*", [b"*"], [b"a", b"\\*"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"*", [b"", b"anything"], []),
        (b"**", [b"a", b"aa"], [b""]),
        (b"", [b""], [b"a"]),
        (b"a*", [b"a", b"ab"], [b"", b"ba"]),
        (b"?", [b"\n", b"\xff"], [b"", b"aa"]),
        # Plain chars have a sign on x86: this range runs from 0xff up to "a".
        (b"[a-\xff]", [b"a", b"A", b"\xff"], [b"b", b"\x80"]),
    ],
)
def test_classes_escapes_and_stars_are_read_as_redis_reads_them(pattern: bytes, taken: list[bytes], refused: list[bytes]) -> None:
    glob = Glob(pattern)
    assert [text for text in taken if not glob.matches(text)] == []
    assert [text for text in refused if glob.matches(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        b"a*" * 30 + b"b",
        b"*a" * 100 + b"b",
        b"?*" * 60 + b"b",
        b"*[ab]" * 40 + b"c",
        b"*a" * 20_000 + b"b",
        b"*" + b"a" * 20_000 + b"b",
        b"[a-z]*" * 10_000 + b"A",
    ],
)
def test_no_pattern_runs_away_on_a_long_key(pattern: bytes) -> None:
    started = time.process_time()
    glob = Glob(pattern)
    assert not glob.matches(b"a" * 30_000)
    assert time.process_time() - started < 5


def test_a_pattern_over_its_limit_is_refused_before_any_work() -> None:
    Glob(b"x" * GLOB_PATTERN_MAX_BYTES)
    with pytest.raises(CommandError, match="pattern is too long"):
        Glob(b"x" * (GLOB_PATTERN_MAX_BYTES + 1))


def test_random_patterns_of_both_kinds_agree_with_each_other() -> None:
    rng = random.Random(4)
    for _ in range(300):
        short = bytes(rng.choices(b"ab?*[]^-", k=rng.randrange(12)))
        text = bytes(rng.choices(b"ab]-", k=rng.randrange(10)))
        long = b"?" * 260 + b"*" + short
        assert bool(Glob(long).matches(b"x" * 260 + text)) == reference(b"x*" + short, b"x" + text), (short, text)
