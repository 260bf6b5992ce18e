"""What an object costs the process, as a formula.

CPython serves objects up to 512 bytes from arenas in steps of 16 bytes and larger ones from malloc, whose chunks carry 8 bytes
of their own and are rounded to 16 as well. Summing these while records come and go costs an addition a write; asking the
operating system would cost a system call and answer for the whole process.
"""

from __future__ import annotations

from typing import Final

BYTES_HEADER: Final = 33
"""``sys.getsizeof(b"")``: header, hash and the final NUL."""

STAMP_BYTES: Final = 48
"""An int of 128 bits (44 bytes), rounded."""

DEADLINE_BYTES: Final = 32
"""An int of 41 bits (32 bytes)."""

_SMALL_OBJECT_BYTES: Final = 512


def bytes_cost(length: int) -> int:
    """Return what a ``bytes`` object of ``length`` bytes takes of the process' memory, in bytes."""
    size = length + BYTES_HEADER
    if size <= _SMALL_OBJECT_BYTES:
        return (size + 15) & ~15
    return (size + 8 + 15) & ~15


def record_bytes(key: bytes, value: bytes) -> int:
    """Return what a key, its value and its stamp take, without their places in the shards, in bytes."""
    return bytes_cost(len(key)) + bytes_cost(len(value)) + STAMP_BYTES
