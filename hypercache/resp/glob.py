"""Redis' glob patterns (its ``stringmatchlen``), matched without backtracking that runs away.

A pattern of usual length becomes a regular expression. It is a row of pieces between stars; each piece but the last may be bound to
its first place after the one before it without losing a match, so it stands in an atomic group: nothing is ever tried twice. A long
pattern, which would take long to compile, is run as an automaton whose states are the bits of one integer. Either way the work is
bounded by pattern times text, and what can be done with a pattern before any text is seen by `GLOB_PATTERN_MAX_BYTES`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.limits import GLOB_PATTERN_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Token = frozenset[int] | None

_STAR: Final = None
_ANY: Final = frozenset(range(256))
_ONE: Final = tuple(frozenset((byte,)) for byte in range(256))
_EXPRESSION_MAX_TOKENS: Final = 256
_CARET, _DASH, _BACKSLASH, _CLOSE = b"^-\\]"


class Glob:
    """One pattern.

    Args:
        pattern: ``*``, ``?``, ``[ab]``, ``[a-z]``, ``[^a]``; a backslash takes the next character as it is.

    Attributes:
        matches_all: the pattern is ``*``: nothing needs to be tried.
        matches: called with a text, returns something true where the whole of it fits the pattern.

    Raises:
        CommandError: the pattern is longer than `GLOB_PATTERN_MAX_BYTES`.
    """

    __slots__ = ("matches", "matches_all")

    matches: Callable[[bytes], object]

    def __init__(self, pattern: bytes) -> None:
        if len(pattern) > GLOB_PATTERN_MAX_BYTES:
            raise CommandError(f"ERR pattern is too long, {GLOB_PATTERN_MAX_BYTES} bytes at most")
        self.matches_all = pattern == b"*"
        tokens = _tokens(pattern)
        if tokens == [_STAR] and not self.matches_all:
            # Redis tries a pattern, even one of stars, only while there is text left; `*` alone it does not try at all.
            self.matches = len
        elif len(tokens) <= _EXPRESSION_MAX_TOKENS:
            self.matches = re.compile(_expression(tokens), re.DOTALL).fullmatch
        else:
            self.matches = _Automaton(tokens).matches


class _Automaton:
    """A pattern as a row of states: state k means that k places are filled. A star lets the state before it stay."""

    __slots__ = ("_final", "_holds", "_masks", "_places")

    def __init__(self, tokens: list[Token]) -> None:
        self._places = [token for token in tokens if token is not None]
        self._final = 1 << len(self._places)
        self._holds = 0
        filled = 0
        for token in tokens:
            if token is None:
                self._holds |= 1 << filled
            else:
                filled += 1
        self._masks: dict[int, int] = {}

    def matches(self, text: bytes) -> bool:
        if len(text) < len(self._places) or (len(text) > len(self._places) and not self._holds):
            return False
        masks, holds = self._masks, self._holds
        states = 1
        for byte in text:
            mask = masks.get(byte)
            if mask is None:
                mask = masks[byte] = self._mask(byte)
            states = (states & mask) << 1 | states & holds
            if not states:
                return False
        return states & self._final != 0

    def _mask(self, byte: int) -> int:
        """Return the places that take this byte, place k as bit k; a text of binary digits makes that in linear time."""
        return int("".join(["1" if byte in place else "0" for place in reversed(self._places)]), 2)


def _expression(tokens: list[Token]) -> bytes:
    pieces = [b""]
    for token in tokens:
        if token is None:
            pieces.append(b"")
        elif token is _ANY:
            pieces[-1] += b"."
        elif len(token) == 1:
            pieces[-1] += re.escape(bytes(token))
        else:
            pieces[-1] += _class_expression(token)
    if len(pieces) == 1:
        return pieces[0]
    middle = b"".join(b"(?>.*?" + piece + b")" for piece in pieces[1:-1])
    return pieces[0] + middle + b".*" + pieces[-1]


def _class_expression(members: frozenset[int]) -> bytes:
    negated = len(members) > len(_ANY) // 2 or not members
    shown = b"".join(b"\\x%02x" % byte for byte in sorted(_ANY - members if negated else members))
    if not shown:
        return b"."
    return (b"[^%b]" if negated else b"[%b]") % shown


def _tokens(pattern: bytes) -> list[Token]:
    """Return the places of a pattern, each as the bytes that it takes, and its stars; a row of stars is one."""
    tokens: list[Token] = []
    at, end = 0, len(pattern)
    while at < end:
        byte = pattern[at]
        at += 1
        if byte == 0x2A:
            if not tokens or tokens[-1] is not None:
                tokens.append(_STAR)
        elif byte == 0x3F:
            tokens.append(_ANY)
        elif byte == 0x5B:
            at, members = _class(pattern, at)
            tokens.append(members)
        else:
            if byte == _BACKSLASH and at < end:
                byte = pattern[at]
                at += 1
            tokens.append(_ONE[byte])
    return tokens


def _class(pattern: Sequence[int], at: int) -> tuple[int, frozenset[int]]:
    """Return where a class ends and what it takes; one that is not closed reaches to the end of the pattern."""
    end = len(pattern)
    negated = at < end and pattern[at] == _CARET
    if negated:
        at += 1
    members: set[int] = set()
    while at < end and pattern[at] != _CLOSE:
        byte = pattern[at]
        if byte == _BACKSLASH and at + 1 < end:
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < end and pattern[at + 1] == _DASH:
            members.update(_range(byte, pattern[at + 2]))
            at += 3
        else:
            members.add(byte)
            at += 1
    return at + 1, _ANY - members if negated else frozenset(members)


def _range(first: int, last: int) -> set[int]:
    """Return the bytes of a range, whose ends may stand either way round."""
    # Redis compares plain C chars, which have a sign on x86: there 0x80 to 0xff stand before 0x00.
    low, high = sorted((first ^ 0x80, last ^ 0x80))
    return {byte ^ 0x80 for byte in range(low, high + 1)}
