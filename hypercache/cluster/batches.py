"""What an entry of the stores of level raft holds: the commands of clients, and what they were answered.

A batch is a msgpack array of units, a unit ``[store, protocol, [[name, argument …] …]]``: commands of one connection that are
applied directly after each other. An answer has an array of replies a unit, or how many there are where all of them are OK.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.control.entries import EntryKind, undecided
from hypercache.errors import MalformedMessageError
from hypercache.resp.replies import OK

if TYPE_CHECKING:
    from collections.abc import Sequence

Unit = tuple[int, int, list[list[bytes]]]
"""The store's number (the index of the entry that made it), the protocol version of the replies, the commands."""

_ARRAY: Final = struct.Struct(">BI")
_ARRAY_32: Final = 0xDD
_encode: Final = msgspec.msgpack.Encoder().encode
_units: Final = msgspec.msgpack.Decoder(list[Unit])
_answer: Final = msgspec.msgpack.Decoder(list[int | list[bytes]])


def encode_unit(store: int, resp: int, requests: list[list[bytes]]) -> bytes:
    """Return a unit."""
    return _encode((store, resp, requests))


def batch_entry(units: Sequence[bytes]) -> bytes:
    """Return a proposal's data with these units; without any it lets time pass."""
    return undecided(EntryKind.STORES, _ARRAY.pack(_ARRAY_32, len(units)) + b"".join(units))


def decode_batch(data: bytes) -> list[Unit]:
    """Return the units of an entry.

    Raises:
        MalformedMessageError: there is something else in it.
    """
    try:
        return _units.decode(data)
    except msgspec.MsgspecError as error:
        raise MalformedMessageError(f"an entry holds no batch of commands: {error}") from None


def encode_answer(replies: list[list[bytes]]) -> bytes:
    """Return what a batch is answered."""
    return _encode([len(unit) if unit.count(OK) == len(unit) else unit for unit in replies])


def decode_answer(data: bytes) -> list[list[bytes]]:
    """Return the replies to each unit.

    Raises:
        MalformedMessageError: there is something else in it.
    """
    try:
        return [[OK] * unit if isinstance(unit, int) else unit for unit in _answer.decode(data)]
    except msgspec.MsgspecError as error:
        raise MalformedMessageError(f"the answer to a batch of commands is damaged: {error}") from None
