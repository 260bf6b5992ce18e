"""One declaration a message: encoder, decoder, inspector, documentation and JSON schema come from it (wire.md, section 5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec
import xxhash

from hypercache.errors import SchemaError
from hypercache.wire import kinds
from hypercache.wire.codegen import compile_codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_KIND_NAMES: Final[dict[type[kinds.Part], str]] = {
    kinds.Number: "u",
    kinds.Flag: "bool",
    kinds.Reserved: "reserved",
    kinds.Fixed: "bytes",
    kinds.Length: "length",
    kinds.Blob: "bytes",
    kinds.Text: "text",
    kinds.ShortText: "short text",
    kinds.Rest: "rest",
    kinds.Count: "count",
    kinds.Entries: "entries",
    kinds.TrailingFlag: "trailing bool",
}


class Message(msgspec.Struct, frozen=True):
    """A message, or an entry of a list within one.

    A class is declared by the schema that it enters, or when it is first used; the methods here are then replaced by its own.

    Attributes:
        TYPE: the type byte; -1 for an entry.
        PARTS: the declaration, in the order of the wire.
        ANSWER: the type byte of its answer; -1 where it has none.
        IDEMPOTENT: whether it may be sent again when no answer came: twice does no more than once.
        scan: decodes a run of version 0x01 frames of this type; None where the layout is too free for that.
        scan_extended: the same for version 0x02.
        open_run: the same for those that came through layers.
    """

    TYPE: ClassVar[int] = -1
    PARTS: ClassVar[tuple[kinds.Part, ...]] = ()
    ANSWER: ClassVar[int] = -1
    IDEMPOTENT: ClassVar[bool] = False
    scan: ClassVar[Any] = None
    scan_extended: ClassVar[Any] = None
    open_run: ClassVar[Any] = None

    def encode_payload(self) -> bytes:
        """Return the payload.

        Raises:
            MessageTooLargeError: a field does not fit its place.
        """
        declare(type(self))
        return self.encode_payload()

    def encode_frame(self) -> bytes:
        """Return a whole version 0x01 frame.

        Raises:
            MessageTooLargeError: a field does not fit its place.
        """
        declare(type(self))
        return self.encode_frame()

    @classmethod
    def decode_payload(cls, payload: bytes) -> Self:
        """Return the message that a payload holds; bytes behind its layout are ignored.

        Raises:
            MalformedMessageError: the payload does not fit the layout.
        """
        declare(cls)
        return cls.decode_payload(payload)

    def encode_body(self) -> bytes:
        """Return the body of a version 0x02 frame: the payload, and what trails it there.

        Raises:
            MessageTooLargeError: a field does not fit its place.
        """
        declare(type(self))
        return self.encode_body()

    @classmethod
    def decode_body(cls, body: bytes) -> Self:
        """Return the message that the body of a version 0x02 frame holds.

        Raises:
            MalformedMessageError: the body does not fit the layout.
        """
        declare(cls)
        return cls.decode_body(body)

    @classmethod
    def read_entry(cls, data: bytes, at: int) -> tuple[Self, int]:
        """Return the entry at ``at`` and where it ends.

        Raises:
            MalformedMessageError: the bytes do not fit the layout.
        """
        declare(cls)
        return cls.read_entry(data, at)


def _check(cls: type[Message]) -> None:
    """Hold a class' fields against its declaration."""
    parts = [part.name for part in cls.PARTS if part.name]
    fields = list(cls.__struct_fields__)
    if parts != fields:
        raise SchemaError(f"{cls.__name__}: the fields {fields} are not the declared {parts}, in that order")
    announced = [part.of for part in cls.PARTS if isinstance(part, kinds.Length | kinds.Count)]
    needed = [part.name for part in cls.PARTS if isinstance(part, kinds.Blob | kinds.Text | kinds.Entries)]
    if sorted(announced) != sorted(needed):
        raise SchemaError(f"{cls.__name__}: lengths and counts are given for {announced}, needed for {needed}")
    loose = False
    for place, part in enumerate(cls.PARTS):
        if loose and isinstance(part, kinds.FIXED_KINDS):
            raise SchemaError(f"{cls.__name__}: parts of a fixed size must stand before all that have none")
        if isinstance(part, kinds.Rest) and place + 1 < len(cls.PARTS):
            raise SchemaError(f"{cls.__name__}: nothing can follow {part.name!r}, which takes the rest")
        loose = loose or not isinstance(part, kinds.FIXED_KINDS)


def declare(cls: type[Message]) -> None:
    """Give a class, and the entries of its lists, their encoders and decoders.

    Raises:
        SchemaError: its fields and its declaration differ, or the declaration is inconsistent.
    """
    _check(cls)
    for part in cls.PARTS:
        if isinstance(part, kinds.Entries):
            declare(part.entry)
    functions = compile_codec(cls.__name__, cls.TYPE, cls.PARTS, cls)
    for name in ("encode_payload", "encode_frame", "encode_body"):
        setattr(cls, name, functions[name])
    for name in ("decode_payload", "decode_body", "read_entry", "scan", "scan_extended", "open_run"):
        if name in functions:
            setattr(cls, name, staticmethod(functions[name]))


class Schema:
    """The messages that are understood: by type byte and by name.

    Args:
        messages: message classes; they are declared here.
        extends: a schema whose messages are understood too.

    Attributes:
        answer_types: the types that answer another message.

    Raises:
        SchemaError: a declaration is inconsistent, or a type or name is taken.
    """

    def __init__(self, messages: Iterable[type[Message]], *, extends: Schema | None = None) -> None:
        self._by_type: dict[int, type[Message]] = dict(extends._by_type) if extends else {}
        self._by_name: dict[str, type[Message]] = dict(extends._by_name) if extends else {}
        for cls in messages:
            if not 0 <= cls.TYPE <= 0xFF:
                raise SchemaError(f"{cls.__name__}: {cls.TYPE} is no type byte")
            if cls.TYPE in self._by_type or cls.__name__ in self._by_name:
                raise SchemaError(f"{cls.__name__}: the type 0x{cls.TYPE:02x} or the name is taken")
            declare(cls)
            self._by_type[cls.TYPE] = cls
            self._by_name[cls.__name__] = cls
        self.answer_types = frozenset(cls.ANSWER for cls in self._by_type.values() if cls.ANSWER >= 0)

    def __iter__(self) -> Iterator[type[Message]]:
        return iter(sorted(self._by_type.values(), key=lambda cls: cls.TYPE))

    def by_type(self, message_type: int) -> type[Message] | None:
        """Return the class of a type byte, None where it is unknown."""
        return self._by_type.get(message_type)

    def by_name(self, name: str) -> type[Message] | None:
        """Return the class of a name, None where it is unknown."""
        return self._by_name.get(name)

    def as_data(self) -> list[dict[str, Any]]:
        """Return the whole schema as data for JSON, ordered by type."""
        return [{"type": cls.TYPE, "name": cls.__name__, "parts": parts_as_data(cls)} for cls in self]

    def extended(self, messages: Iterable[type[Message]]) -> Schema:
        """Return a schema that understands further messages too; this one stays as it is.

        Raises:
            SchemaError: a declaration is inconsistent, or a type or name is taken.
        """
        return Schema(messages, extends=self)

    def document(self) -> dict[str, Any]:
        """Return what a reader of the schema gets: its hash and every message, as data for JSON."""
        return {"hash": f"{self.hash():016x}", "messages": self.as_data()}

    def hash(self) -> int:
        """Return a number of 64 bits that two schemas share where they say the same."""
        return xxhash.xxh64_intdigest(json.dumps(self.as_data(), sort_keys=True, separators=(",", ":")).encode())


def parts_as_data(cls: type[Message]) -> list[dict[str, Any]]:
    """Return a declaration's parts as data for JSON."""
    shown = []
    for part in cls.PARTS:
        row: dict[str, Any] = {"kind": _KIND_NAMES[type(part)]}
        if part.name:
            row["name"] = part.name
        if isinstance(part, kinds.Number):
            row["kind"] = f"u{part.size * 8}"
        elif isinstance(part, kinds.Reserved | kinds.Fixed):
            row["size"] = part.size
        elif isinstance(part, kinds.Length | kinds.Count):
            row |= {"of": part.of, "size": part.size}
        elif isinstance(part, kinds.Entries):
            row["entry"] = {"name": part.entry.__name__, "parts": parts_as_data(part.entry)}
        shown.append(row)
    return shown
