"""What a proposal's data begins with: what the leader decides, and for whom the rest is.

``when u64 ‖ chance u64 ‖ kind u8 ‖ rest``. The proposer leaves ``when`` (Unix milliseconds) and ``chance`` 0; the leader sets both
before the entry enters the log, so that every member applies a command at the same time and with the same luck.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from hypercache.errors import MalformedMessageError

_PREFIX: Final = struct.Struct(">QQB")
_DECIDED: Final = struct.Struct(">QQ")
PREFIX_BYTES: Final = _PREFIX.size


class EntryKind(IntEnum):
    """Who applies an entry."""

    CONTROL = 1
    """The control plane: a `hypercache.control` command."""
    STORES = 2
    """The stores of level raft: commands of clients."""


def undecided(kind: EntryKind, rest: bytes) -> bytes:
    """Return a proposal's data for the leader to decide on."""
    return _PREFIX.pack(0, 0, kind) + rest


def decided(data: bytes, when_ms: int, chance: int) -> bytes:
    """Return a proposal's data with the leader's time, Unix milliseconds, and luck, 64 random bits."""
    return _DECIDED.pack(when_ms, chance) + data[_DECIDED.size :]


def split_entry(data: bytes) -> tuple[int, int, int, bytes]:
    """Return ``when``, ``chance``, ``kind`` and the rest.

    Raises:
        MalformedMessageError: the data is too short.
    """
    if len(data) < PREFIX_BYTES:
        raise MalformedMessageError(f"an entry of {len(data)} bytes holds no command")
    when, chance, kind = _PREFIX.unpack_from(data)
    return when, chance, kind, data[PREFIX_BYTES:]
