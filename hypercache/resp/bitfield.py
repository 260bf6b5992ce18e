"""BITFIELD: integers of any width at any place of a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import CommandError
from hypercache.resp.arguments import SYNTAX_ERROR, parse_int
from hypercache.resp.replies import array, integer, nil
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

_BAD_TYPE: Final = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
_BAD_OFFSET: Final = "bit offset is not an integer or out of range"
_OVERFLOWS: Final = frozenset((b"WRAP", b"SAT", b"FAIL"))
_WIDTHS: Final = {b"i%d" % width: width for width in range(1, 65)} | {b"u%d" % width: width for width in range(1, 64)}
_UNSIGNED_64_BITS: Final = (1 << 64) - 1
_GROUP: Final = "bitmap"


class Field(msgspec.Struct, frozen=True):
    """An integer's place: its first bit, its width, and whether it has a sign."""

    offset: int
    width: int
    signed: bool

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest value."""
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return 0, (1 << self.width) - 1

    @property
    def end_byte(self) -> int:
        """How long a value must be to hold it."""
        return (self.offset + self.width + 7) >> 3

    def read(self, value: bytes | bytearray) -> int:
        """Return the integer; behind the value's end there are zeros."""
        first = self.offset >> 3
        chunk = bytes(value[first : self.end_byte]).ljust(self.end_byte - first, b"\0")
        number = int.from_bytes(chunk, "big") >> (-(self.offset + self.width) & 7) & (1 << self.width) - 1
        return number - (1 << self.width) if self.signed and number >> self.width - 1 else number

    def write(self, value: bytearray, number: int) -> None:
        """Store an integer that fits; the value grows where it must."""
        if len(value) < self.end_byte:
            value.extend(bytes(self.end_byte - len(value)))
        first = self.offset >> 3
        shift = -(self.offset + self.width) & 7
        mask = (1 << self.width) - 1
        chunk = int.from_bytes(value[first : self.end_byte], "big") & ~(mask << shift) | (number & mask) << shift
        value[first : self.end_byte] = chunk.to_bytes(self.end_byte - first, "big")

    def fit(self, number: int, overflow: bytes) -> int | None:
        """Return what an integer becomes here: itself, wrapped, saturated, or None where that is to fail."""
        lowest, highest = self.bounds
        if lowest <= number <= highest:
            return number
        if overflow == b"FAIL":
            return None
        if overflow == b"SAT":
            return highest if number > highest else lowest
        return (number - lowest) % (1 << self.width) + lowest


class Operation(msgspec.Struct, frozen=True):
    """One step: GET, SET or INCRBY of a field."""

    kind: bytes
    field: Field
    argument: int
    overflow: bytes

    def wanted(self, old: int) -> int:
        """Return what the field is to become if it can."""
        if self.kind == b"INCRBY":
            return old + self.argument
        # A negative number set in a field without a sign is Redis' unsigned 64-bit number of the same bits: far above, not below.
        return self.argument if self.field.signed else self.argument & _UNSIGNED_64_BITS


def _parse_field(session: Session, kind: bytes, place: bytes) -> Field:
    width = _WIDTHS.get(kind)
    if width is None:
        raise CommandError(_BAD_TYPE)
    multiplied = place[:1] == b"#"
    offset = parse_int(place[1:] if multiplied else place, _BAD_OFFSET)
    if multiplied:
        offset *= width
    if offset < 0 or offset >> 3 >= session.server.value_max_bytes:
        raise CommandError(f"ERR {_BAD_OFFSET}")
    return Field(offset, width, kind[:1] == b"i")


def _parse(session: Session, args: list[bytes], *, read_only: bool) -> list[Operation]:
    operations = []
    overflow = b"WRAP"
    at = 2
    while at < len(args):
        kind = args[at].upper()
        left = len(args) - 1 - at
        if kind == b"GET" and left >= 2:
            operations.append(Operation(kind, _parse_field(session, args[at + 1], args[at + 2]), 0, overflow))
            at += 3
        elif kind in (b"SET", b"INCRBY") and left >= 3:
            field = _parse_field(session, args[at + 1], args[at + 2])
            operations.append(Operation(kind, field, parse_int(args[at + 3]), overflow))
            at += 4
        elif kind == b"OVERFLOW" and left >= 1:
            overflow = args[at + 1].upper()
            if overflow not in _OVERFLOWS:
                raise CommandError("ERR Invalid OVERFLOW type specified")
            at += 2
        else:
            raise CommandError(SYNTAX_ERROR)
    if read_only and any(operation.kind != b"GET" for operation in operations):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    return operations


def _run(session: Session, args: list[bytes], *, read_only: bool) -> bytes:
    operations = _parse(session, args, read_only=read_only)
    writes = [operation.field.end_byte for operation in operations if operation.kind != b"GET"]
    if not writes:
        found = session.store.get(args[1]) or b""
        return array([integer(operation.field.read(found)) for operation in operations])
    value = bytearray(session.store.peek(args[1]) or b"")
    replies = []
    changed = False
    if len(value) < max(writes):
        value.extend(bytes(max(writes) - len(value)))
        changed = True
    for operation in operations:
        old = operation.field.read(value)
        if operation.kind == b"GET":
            replies.append(integer(old))
            continue
        number = operation.field.fit(operation.wanted(old), operation.overflow)
        if number is None:
            replies.append(nil(session.resp))
            continue
        operation.field.write(value, number)
        changed = True
        replies.append(integer(old if operation.kind == b"SET" else number))
    if changed:
        session.store.replace(args[1], bytes(value))
    return array(replies)


@command(
    "bitfield",
    arity=-2,
    flags="write denyoom",
    keys=(1, 1, 1),
    group=_GROUP,
    since="3.2.0",
    summary="Performs arbitrary bitfield integer operations on strings.",
)
def bitfield(session: Session, args: list[bytes]) -> bytes:
    """Read and change integers within a value."""
    return _run(session, args, read_only=False)


@command(
    "bitfield_ro",
    arity=-2,
    flags="readonly fast",
    keys=(1, 1, 1),
    group=_GROUP,
    since="6.0.0",
    summary="Performs arbitrary read-only bitfield integer operations on strings.",
)
def bitfield_ro(session: Session, args: list[bytes]) -> bytes:
    """Read integers within a value."""
    return _run(session, args, read_only=True)
