"""From bytes to commands.

hiredis takes the whole commands of a read; it costs a sixth of a microsecond each. It is more lenient than Redis, though: it takes
every type of reply for an argument, makes room for as many elements as a header claims, and says nothing about an unfinished
command. So what could cost too much never reaches it, its result is held against the structure of the bytes, and whatever does not
match goes, before anything runs, to a strict incremental parser, which knows Redis' limits and error texts and owns the unfinished
command at the end of a read.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Final

import hiredis

from hypercache.errors import HyperCacheError
from hypercache.limits import (
    ARGUMENTS_MAX_COUNT,
    INLINE_MAX_BYTES,
    QUERY_BUFFER_MAX_BYTES,
    UNAUTHENTICATED_ARGUMENTS_MAX_COUNT,
    UNAUTHENTICATED_BULK_MAX_BYTES,
    VALUE_MAX_BYTES,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_BIG_BULK_BYTES: Final = 32 * 1024
_LENGTH_MAX_BYTES: Final = len(str(-(1 << 63)))
# hiredis makes the whole list when it has read its header, ten digits cost seconds. A command of so many arguments seldom fits in
# one read anyway. The star comes first so that the search can leap.
_LARGE_ARRAY: Final = re.compile(rb"\*[0-9]{5}[0-9]*+\r")
# What might be the header of another collection that hiredis makes, or of a string with a prefix that it takes off. At the end of a
# read it swallows such a header, and nothing shows that it waits for the elements.
_OTHER_HEADER: Final = re.compile(rb"[>|~%=][0-9]++\r")
_PLAIN_SETS: Final = (b"*3\r\n$3\r\nSET\r\n", b"*3\r\n$3\r\nset\r\n")
_PLAIN_SET_BYTES: Final = len(_PLAIN_SETS[0])
# A longer read holds more than one request, or is not worth the haste.
_SINGLE_MAX_BYTES: Final = 1024
_SPACES: Final = b" \t\n\v\f\r\0"
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class RequestError(HyperCacheError):
    """The bytes are no RESP request; the connection must close once the text went out."""


class RequestParser:
    """The requests of one connection.

    Attributes:
        authenticated: before authentication a request may have few and short arguments only.
        value_max_bytes: the longest argument (``proto-max-bulk-len``).
        buffer_max_bytes: the most that an unfinished request may take (``client-query-buffer-limit``).
        fault: after `take`: what was wrong with the bytes behind the requests that it returned; None for nothing.
    """

    __slots__ = (
        "_arguments",
        "_buffer",
        "_bulk",
        "_bulk_length",
        "_held",
        "_missing",
        "_position",
        "_reader",
        "authenticated",
        "buffer_max_bytes",
        "fault",
        "value_max_bytes",
    )

    def __init__(
        self,
        *,
        authenticated: bool = True,
        value_max_bytes: int = VALUE_MAX_BYTES,
        buffer_max_bytes: int = QUERY_BUFFER_MAX_BYTES,
    ) -> None:
        self.authenticated = authenticated
        self.value_max_bytes = value_max_bytes
        self.buffer_max_bytes = buffer_max_bytes
        self.fault: str | None = None
        self._reader = hiredis.Reader()
        self._buffer = b""
        self._position = 0
        # The unfinished request: the arguments that are missing, those that are whole, the bytes that they hold.
        self._missing = 0
        self._arguments: list[bytes] = []
        self._held = 0
        # The argument being received: its length (-1: not yet known), and its bytes where it is a large one.
        self._bulk_length = -1
        self._bulk: bytearray | None = None

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of an unfinished request are held."""
        return len(self._buffer) - self._position + self._held + len(self._bulk or b"")

    def whole(self, data: bytes) -> list[list[bytes]] | None:
        """Parse a read that begins and ends between two requests.

        Args:
            data: what was read.

        Returns:
            The requests, or None where this is no such read, or anything about it is unusual: `feed` and `requests` must do it.
        """
        if self._missing or self._buffer or data[:1] != b"*" or data[-2:] != b"\r\n" or not self.authenticated:
            return None
        if len(data) <= _SINGLE_MAX_BYTES and data.startswith(_PLAIN_SETS) and len(data) <= self.value_max_bytes:
            # A single SET: half the cost of the general way. Whatever is unusual about it fails to compare.
            pieces = data[_PLAIN_SET_BYTES:].split(b"\r\n", 3)
            if len(pieces) == 4:
                key_length, key, value_length, rest = pieces
                value = rest[:-2]
                if rest and value_length == b"$%d" % len(value) and key_length == b"$%d" % len(key):
                    return [[data[8:11], key, value]]
        # The type bytes as numbers: looking for one in bytes takes a quarter of the time that it takes for a string of one byte.
        if _LARGE_ARRAY.search(data) or (
            (62 in data or 124 in data or 61 in data or 126 in data or 37 in data) and _OTHER_HEADER.search(data)
        ):
            return None
        reader = self._reader
        try:
            reader.feed(data)
            requests: list[list[bytes]] = list(iter(reader.gets, False))
            arguments = requests[0] if len(requests) == 1 else list(chain.from_iterable(requests))
            values = b"".join(arguments)
        except (hiredis.ProtocolError, TypeError):
            # TypeError: something that is no collection, or something in one that is no string.
            self._reader = hiredis.Reader()
            return None
        # All are strings in arrays. They are bulk strings, and nothing is unfinished, where just as many type bytes stand outside
        # of the values. Mostly that needs no counting in the values: no other type of string occurs, and no further star.
        proven = (
            not reader.has_data()
            and len(data) <= self.value_max_bytes
            and all(requests)
            and (
                (data.count(b"*") == len(requests) and 43 not in data and 40 not in data)
                or (
                    data.count(b"*") - values.count(b"*") == len(requests)
                    and data.count(b"$") - values.count(b"$") == len(arguments)
                )
            )
        )
        if proven:
            return requests
        self._reader = hiredis.Reader()
        return None

    def take(self, data: bytes) -> list[list[bytes]]:
        """Return the requests that ``data`` completes, all at once.

        A fault ends the list and is kept in `fault`: what came before it counts.
        """
        self.fault = None
        requests = self.whole(data)
        if requests is not None:
            return requests
        taken: list[list[bytes]] = []
        try:
            if self._buffer or self._missing:
                self.feed(data)
                request = self._request()
                if request is None:
                    self._trim()
                    return taken
                if request:
                    taken.append(request)
                data, self._buffer, self._position = self._buffer[self._position :], b"", 0
                requests = self.whole(data)
                if requests is not None:
                    return taken + requests
            # The last request may be cut by the end of the read: all before it can still go the fast way.
            cut = data.rfind(b"\r\n*") + 2
            if cut > 1 and (requests := self.whole(data[:cut])) is not None:
                taken += requests
                data = data[cut:]
            self.feed(data)
            for request in self.requests():
                taken.append(request)
        except RequestError as error:
            self.fault = str(error)
        return taken

    def feed(self, data: bytes) -> None:
        """Add what was read; `requests` then yields what is whole."""
        if self._bulk is not None:
            # A large argument grows in place: nothing of it is ever copied twice.
            room = self._bulk_length + 2 - len(self._bulk)
            if len(data) <= room:
                self._bulk += data
                return
            self._bulk += memoryview(data)[:room]
            self._buffer, self._position = data, room
            return
        rest = self._buffer[self._position :] if self._position else self._buffer
        self._buffer = rest + data if rest else data
        self._position = 0

    def requests(self) -> Iterator[list[bytes]]:
        """Yield the whole requests that are buffered; what changes between two of them (authentication) holds for the next.

        Raises:
            RequestError: the bytes are no request, or a limit is exceeded; what came before was yielded.
        """
        while True:
            request = self._request()
            if request is None:
                break
            if request:
                yield request
        self._trim()

    def _trim(self) -> None:
        if self._position:
            self._buffer = self._buffer[self._position :]
            self._position = 0
        if self.buffered_bytes > self.buffer_max_bytes:
            raise RequestError(f"Protocol error: request exceeds the query buffer limit of {self.buffer_max_bytes} bytes")

    def _request(self) -> list[bytes] | None:
        if not self._missing:
            if self._position >= len(self._buffer):
                return None
            if self._buffer[self._position] != 0x2A:
                return self._inline()
            end = self._line_end()
            if end is None:
                return None
            count = self._line_integer(end, "multibulk")
            if count > ARGUMENTS_MAX_COUNT or count < -(1 << 63):
                raise RequestError("Protocol error: invalid multibulk length")
            if count > UNAUTHENTICATED_ARGUMENTS_MAX_COUNT and not self.authenticated:
                raise RequestError("Protocol error: unauthenticated multibulk length")
            if count <= 0:
                return []
            self._missing = count
            self._arguments = []
            self._held = 0
        while self._missing:
            argument = self._argument()
            if argument is None:
                return None
            self._arguments.append(argument)
            self._held += len(argument)
            self._missing -= 1
        request, self._arguments, self._held = self._arguments, [], 0
        return request

    def _argument(self) -> bytes | None:
        if self._bulk_length < 0:
            if self._position >= len(self._buffer):
                return None
            end = self._line_end()
            if end is None:
                return None
            first = self._buffer[self._position]
            if first != 0x24:
                shown = bytes([first]).decode("utf-8", "surrogateescape")
                raise RequestError(f"Protocol error: expected '$', got '{shown}'")
            length = self._line_integer(end, "bulk")
            if not 0 <= length <= self.value_max_bytes:
                raise RequestError("Protocol error: invalid bulk length")
            if length > UNAUTHENTICATED_BULK_MAX_BYTES and not self.authenticated:
                raise RequestError("Protocol error: unauthenticated bulk length")
            self._bulk_length = length
        length = self._bulk_length
        if self._bulk is None:
            start = self._position
            if len(self._buffer) - start >= length + 2:
                self._position = start + length + 2
                self._bulk_length = -1
                return self._buffer[start : start + length]
            if length >= _BIG_BULK_BYTES:
                self._bulk = bytearray(memoryview(self._buffer)[start:])
                self._buffer, self._position = b"", 0
            return None
        if len(self._bulk) < length + 2:
            return None
        del self._bulk[length:]
        argument, self._bulk, self._bulk_length = bytes(self._bulk), None, -1
        return argument

    def _line_end(self) -> int | None:
        """Return where the line at the position ends; None where that has not arrived."""
        end = self._buffer.find(b"\r", self._position, self._position + INLINE_MAX_BYTES + 1)
        if end < 0:
            if len(self._buffer) - self._position > INLINE_MAX_BYTES:
                kind = "bulk" if self._missing else "mbulk"
                raise RequestError(f"Protocol error: too big {kind} count string")
            return None
        return end if end + 2 <= len(self._buffer) else None

    def _line_integer(self, end: int, kind: str) -> int:
        """Take the line at the position, a type byte and an integer."""
        digits = self._buffer[self._position + 1 : end]
        unsigned = digits[1:] if digits[:1] == b"-" else digits
        canonical = unsigned.isdigit() and (unsigned[:1] != b"0" or digits == b"0") and len(digits) <= _LENGTH_MAX_BYTES
        if not canonical:
            raise RequestError(f"Protocol error: invalid {kind} length")
        self._position = end + 2
        return int(digits)

    def _inline(self) -> list[bytes] | None:
        end = self._buffer.find(b"\n", self._position, self._position + INLINE_MAX_BYTES + 1)
        if end < 0:
            if len(self._buffer) - self._position > INLINE_MAX_BYTES:
                raise RequestError("Protocol error: too big inline request")
            return None
        line = self._buffer[self._position : end]
        self._position = end + 1
        arguments = split_quoted(line.removesuffix(b"\r"))
        if arguments is None:
            raise RequestError("Protocol error: unbalanced quotes in request")
        return arguments


def split_quoted(line: bytes) -> list[bytes] | None:
    """Split an inline request at white space; quotes and escapes as in redis-cli; None where quotes are unbalanced."""
    arguments: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _SPACES:
            at += 1
        if at >= end:
            return arguments
        argument = bytearray()
        quote = 0
        while at < end or quote:
            if at >= end:
                return None
            byte = line[at]
            if quote:
                if byte == quote:
                    if at + 1 < end and line[at + 1] not in _SPACES:
                        return None
                    quote = 0
                    at += 1
                    break
                taken, value = _quoted(line, at, quote)
                argument.append(value)
                at += taken
            elif byte in _SPACES:
                break
            elif byte in b"\"'":
                quote = byte
                at += 1
            else:
                argument.append(byte)
                at += 1
        arguments.append(bytes(argument))


def _quoted(line: bytes, at: int, quote: int) -> tuple[int, int]:
    """Return how many bytes one character in quotes takes, and its value."""
    if line[at] != 0x5C or at + 1 >= len(line):
        return 1, line[at]
    following = line[at + 1]
    if quote == 0x27:
        return (2, 0x27) if following == 0x27 else (1, 0x5C)
    if following == 0x78 and len(line) > at + 3 and line[at + 2] in _HEX and line[at + 3] in _HEX:
        return 4, int(line[at + 2 : at + 4], 16)
    return 2, _ESCAPES.get(following, following)
