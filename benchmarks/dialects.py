"""Putting values over RESP and over gRPC's HTTP/2: bytes in, bytes and counts out, so that one client measures both alike.

Each is as cheap as an honest client can be: requests are encoded beforehand where that can be, every answer is looked at.
"""

from __future__ import annotations

import struct
from typing import Protocol

KEYS_COUNT = 10_000
VALUE = b"v" * 100

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK = END_STREAM = 1
_END_HEADERS = 4
_FRAME = struct.Struct(">HBBBI")
_LARGEST_WINDOW = 2**31 - 1
_FIRST_WINDOW = 65_535


class RefusedError(Exception):
    """A server answered something else than that it did what was asked."""


class Dialect(Protocol):
    """One connection's side of a protocol.

    Attributes:
        greeting: what is sent first.
    """

    greeting: bytes

    def put(self, number: int) -> bytes:
        """Return a request that stores a value under one of the keys."""

    def received(self, data: bytes) -> tuple[int, bytes]:
        """Take what a server sent; return how many puts it confirmed, and what it must be answered.

        Raises:
            RefusedError: it refused one.
        """


def _key(number: int) -> bytes:
    return b"key:%012d" % number


class RespPuts:
    """SET in a store that is selected first."""

    _puts = tuple(
        b"*3\r\n$3\r\nSET\r\n$16\r\n%b\r\n$%d\r\n%b\r\n" % (_key(number), len(VALUE), VALUE) for number in range(KEYS_COUNT)
    )
    _done = b"+OK\r\n"

    def __init__(self, store: bytes) -> None:
        self.greeting = b"*2\r\n$6\r\nSELECT\r\n$%d\r\n%b\r\n" % (len(store), store)
        self._selected = False
        self._rest = b""

    def put(self, number: int) -> bytes:
        """Return a SET."""
        return self._puts[number % KEYS_COUNT]

    def received(self, data: bytes) -> tuple[int, bytes]:
        """Count what was done; the answer to SELECT is none of them."""
        data = self._rest + data
        count, left = divmod(len(data), len(self._done))
        if data != self._done * count + self._done[:left]:
            raise RefusedError(data[:200].decode("latin-1"))
        self._rest = data[len(data) - left :]
        if count and not self._selected:
            self._selected = True
            count -= 1
        return count, b""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 255, kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK writes it without any table (RFC 7541, section 6.2.2)."""
    return b"\0%c%b%c%b" % (len(name), name, len(value), value)


class EtcdPuts:
    """KV.Put, a stream each (RFC 9113), a message of two fields in it."""

    _headers = b"".join(
        _literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/etcdserverpb.KV/Put"),
            (b":authority", b"127.0.0.1"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    _head = _frame(_HEADERS, _END_HEADERS, 0, _headers)
    _messages = tuple(b"\x0a\x10%b\x12%c%b" % (_key(number), len(VALUE), VALUE) for number in range(KEYS_COUNT))
    _bodies = tuple(_frame(_DATA, END_STREAM, 0, b"\0" + struct.pack(">I", len(each)) + each) for each in _messages)
    greeting = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _LARGEST_WINDOW))
        + _frame(8, 0, 0, struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW))
    )

    def __init__(self) -> None:
        self._stream = 1
        self._rest = b""
        self._answered: set[int] = set()

    def put(self, number: int) -> bytes:
        """Return the frames of a call."""
        stream = self._stream.to_bytes(4, "big")
        self._stream += 2
        head, body = self._head, self._bodies[number % KEYS_COUNT]
        return b"".join((head[:5], stream, head[9:], body[:5], stream, body[9:]))

    def received(self, data: bytes) -> tuple[int, bytes]:
        """Count the calls that ended with a message: one that failed ends without (gRPC over HTTP/2, trailers only)."""
        if self._rest:
            data = self._rest + data
        at, count, reply = 0, 0, b""
        while len(data) - at >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + (high << 8 | low)
            if end > len(data):
                break
            if kind == _DATA:
                self._answered.add(stream)
            elif kind == _HEADERS and flags & END_STREAM:
                if stream not in self._answered:
                    raise RefusedError(data[at:end].decode("latin-1"))
                self._answered.remove(stream)
                count += 1
            elif kind in (_SETTINGS, _PING) and not flags & _ACK:
                reply += _frame(kind, _ACK, 0, data[at + _FRAME.size : end] if kind == _PING else b"")
            elif kind in (_RST_STREAM, _GOAWAY):
                raise RefusedError(f"frame of type {kind}")
            at = end
        self._rest = data[at:]
        return count, reply
