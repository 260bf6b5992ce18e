"""Redis' glob patterns, compiled to a regular expression that cannot run away.

A glob is a row of pieces between stars. Each piece but the last may be bound to its first place after the one before it without
losing a match, so it stands in an atomic group: nothing is ever tried twice, and the work is bounded by pattern times text.
"""

from __future__ import annotations

import re

_EVERY_BYTE = b"[\\x00-\\xff]"
_NO_BYTE = b"[^\\x00-\\xff]"


class Glob:
    """One pattern.

    Args:
        pattern: ``*``, ``?``, ``[ab]``, ``[a-z]``, ``[^a]``; a backslash takes the next character as it is.

    Attributes:
        matches_all: the pattern is ``*``: nothing needs to be tried.
    """

    __slots__ = ("_match", "matches_all")

    def __init__(self, pattern: bytes) -> None:
        self.matches_all = pattern == b"*"
        pieces = _pieces(pattern)
        if len(pieces) == 1:
            expression = pieces[0]
        else:
            middle = b"".join(b"(?>.*?" + piece + b")" for piece in pieces[1:-1] if piece)
            expression = pieces[0] + middle + b".*" + pieces[-1]
        self._match = re.compile(expression, re.DOTALL).fullmatch

    def matches(self, text: bytes) -> bool:
        """Say whether the whole text fits the pattern."""
        return self._match(text) is not None


def _pieces(pattern: bytes) -> list[bytes]:
    """Return the expressions of what stands between the stars."""
    pieces = [b""]
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        if byte == b"*":
            pieces.append(b"")
            at += 1
            continue
        if byte == b"?":
            pieces[-1] += b"."
            at += 1
        elif byte == b"[":
            at, expression = _class(pattern, at + 1)
            pieces[-1] += expression
        else:
            if byte == b"\\" and at + 1 < len(pattern):
                at += 1
            pieces[-1] += re.escape(pattern[at : at + 1])
            at += 1
    return pieces


def _class(pattern: bytes, at: int) -> tuple[int, bytes]:
    """Return where a class ends and its expression; an unclosed one reaches to the end of the pattern."""
    negated = pattern[at : at + 1] == b"^"
    if negated:
        at += 1
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            at += 1
            members.add(pattern[at])
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 2
        else:
            members.add(pattern[at])
        at += 1
    if not members:
        return at + 1, _EVERY_BYTE if negated else _NO_BYTE
    body = b"".join(b"\\x%02x" % member for member in sorted(members))
    return at + 1, (b"[^" if negated else b"[") + body + b"]"
