"""Replies as bytes, in RESP2 and RESP3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OK: Final = b"+OK\r\n"
PONG: Final = b"+PONG\r\n"
QUEUED: Final = b"+QUEUED\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"
MINUS_ONE: Final = b":-1\r\n"
MINUS_TWO: Final = b":-2\r\n"
EMPTY_BULK: Final = b"$0\r\n\r\n"
EMPTY_ARRAY: Final = b"*0\r\n"
NIL2: Final = b"$-1\r\n"
NIL3: Final = b"_\r\n"


def simple(text: bytes) -> bytes:
    """Return a simple string; ``text`` must hold no line break."""
    return b"+%b\r\n" % text


def error(line: str) -> bytes:
    """Return an error reply; line breaks in ``line`` become spaces, as Redis does it."""
    return b"-%b\r\n" % line.encode("utf-8", "surrogateescape").replace(b"\r", b" ").replace(b"\n", b" ")


def integer(number: int) -> bytes:
    """Return an integer reply."""
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    """Return a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def text(value: str) -> bytes:
    """Return a bulk string of a text."""
    return bulk(value.encode("utf-8", "surrogateescape"))


def nil(resp: int) -> bytes:
    """Return the null of a bulk string."""
    return NIL2 if resp == 2 else NIL3


def null_array(resp: int) -> bytes:
    """Return the null of an array."""
    return b"*-1\r\n" if resp == 2 else NIL3


def bulk_or_nil(resp: int, value: bytes | None) -> bytes:
    """Return a bulk string, or a null for None."""
    return nil(resp) if value is None else bulk(value)


def array(items: Sequence[bytes]) -> bytes:
    """Return an array of encoded replies."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def bulks(values: Sequence[bytes]) -> bytes:
    """Return an array of bulk strings."""
    return array([bulk(value) for value in values])


def mapping(resp: int, pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a map of encoded keys and values; in RESP2 a flat array."""
    body = b"".join(part for pair in pairs for part in pair)
    return (b"*%d\r\n%b" % (2 * len(pairs), body)) if resp == 2 else (b"%%%d\r\n%b" % (len(pairs), body))


def set_of(resp: int, items: Sequence[bytes]) -> bytes:
    """Return a set of encoded replies; in RESP2 an array."""
    return array(items) if resp == 2 else b"~%d\r\n%b" % (len(items), b"".join(items))


def push(resp: int, items: Sequence[bytes]) -> bytes:
    """Return a push message; in RESP2 an array."""
    return array(items) if resp == 2 else b">%d\r\n%b" % (len(items), b"".join(items))


def double(resp: int, number: float) -> bytes:
    """Return a double; in RESP2 a bulk string of its shortest text."""
    shown = b"%d" % number if number.is_integer() and abs(number) < 1e17 else repr(number).encode()
    return bulk(shown) if resp == 2 else b",%b\r\n" % shown


def boolean(resp: int, value: bool) -> bytes:
    """Return a boolean; in RESP2 the integer 0 or 1."""
    if resp == 2:
        return ONE if value else ZERO
    return b"#t\r\n" if value else b"#f\r\n"


def verbatim(resp: int, value: str) -> bytes:
    """Return a plain text; in RESP2 a bulk string."""
    encoded = value.encode("utf-8", "surrogateescape")
    return bulk(encoded) if resp == 2 else b"=%d\r\ntxt:%b\r\n" % (len(encoded) + 4, encoded)


def help_lines(command: str, lines: Iterable[str]) -> bytes:
    """Return what a container command answers to HELP: simple strings, a frame around ``lines``."""
    head = f"{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
    tail = ("HELP", "    Prints this help.")
    return array([simple(line.encode()) for line in (head, *lines, *tail)])
