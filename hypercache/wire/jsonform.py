"""Messages as the inspector's JSON, and back (wire.md, section 6)."""

from __future__ import annotations

from typing import Any

from hypercache.errors import MalformedMessageError
from hypercache.wire import kinds
from hypercache.wire.compression import Codec
from hypercache.wire.extension import Extension, More, Part, Trace
from hypercache.wire.schema import Message


def fields_of(message: Message) -> dict[str, Any]:
    """Return a message's fields: raw bytes as hex, texts, numbers, booleans, lists of entries; a trailing flag where it is set."""
    fields = {name: _shown(getattr(message, name)) for name in message.__struct_fields__}
    if message.PARTS and isinstance(message.PARTS[-1], kinds.TrailingFlag) and not fields[message.PARTS[-1].name]:
        del fields[message.PARTS[-1].name]
    return fields


def _shown(value: object) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [fields_of(entry) for entry in value]
    return value


def message_of(cls: type[Message], fields: dict[str, Any]) -> Message:
    """Return the message that JSON fields describe.

    Raises:
        MalformedMessageError: a field is missing, unknown or of the wrong kind; the text names it.
    """
    parts = [part for part in cls.PARTS if part.name]
    unknown = set(fields) - {part.name for part in parts}
    if unknown:
        raise MalformedMessageError(f"{cls.__name__} has no field {min(unknown)!r}")
    values = []
    for part in parts:
        if part.name not in fields and isinstance(part, kinds.TrailingFlag):
            continue
        if part.name not in fields:
            raise MalformedMessageError(f"{cls.__name__}: the field {part.name!r} is missing")
        values.append(_read(cls.__name__, part, fields[part.name]))
    return cls(*values)


def _read(owner: str, part: kinds.Part, value: Any) -> Any:
    where = f"{owner}.{part.name}"
    if isinstance(part, kinds.Number):
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 8 * part.size:
            return value
        raise MalformedMessageError(f"{where} must be an integer of {8 * part.size} bits without a sign, not {value!r}")
    if isinstance(part, kinds.Flag | kinds.TrailingFlag):
        if isinstance(value, bool):
            return value
        raise MalformedMessageError(f"{where} must be true or false, not {value!r}")
    if isinstance(part, kinds.Text | kinds.ShortText):
        if isinstance(value, str):
            return value
        raise MalformedMessageError(f"{where} must be a text, not {value!r}")
    if isinstance(part, kinds.Entries):
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return tuple(message_of(part.entry, entry) for entry in value)
        raise MalformedMessageError(f"{where} must be a list of objects, not {value!r}")
    raw = hex_bytes(where, value)
    if isinstance(part, kinds.Fixed) and len(raw) != part.size:
        raise MalformedMessageError(f"{where} must be {part.size} bytes in hex, not {len(raw)}")
    return raw


def hex_bytes(where: str, value: Any) -> bytes:
    """Return the bytes of a hex string.

    Raises:
        MalformedMessageError: it is none.
    """
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError):
        raise MalformedMessageError(f"{where} must be a string of hex digits, not {value!r}") from None


def extension_fields(extension: Extension) -> dict[str, Any]:
    """Return what an extension holds, absent fields left out."""
    shown: dict[str, Any] = {}
    if extension.exchange is not None:
        shown["exchange"] = extension.exchange
    if extension.reply:
        shown["reply"] = True
    if extension.stream:
        shown["stream"] = extension.stream
    if extension.stamp:
        shown["stamp"] = _stamp_fields(extension.stamp)
    if extension.trace is not None:
        trace = extension.trace
        shown["trace"] = {
            "request_id": trace.request_id.hex(),
            "parent_id": trace.parent_id.hex(),
            "timestamp": trace.timestamp,
            "path": list(trace.path),
        }
    if extension.codec is not None:
        shown["codec"] = extension.codec.name.lower()
    if extension.signed:
        shown["signed"] = True
    if extension.more is not None:
        shown["more"] = _more_fields(extension.more)
    return shown


def _stamp_fields(stamp: int) -> dict[str, int]:
    return {"hlc": stamp >> 64, "origin": stamp & (1 << 64) - 1}


def _more_fields(more: More) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if more.version_vector is not None:
        shown["version_vector"] = {str(node): counter for node, counter in more.version_vector.items()}
    if more.retry_after is not None:
        shown["retry_after"] = more.retry_after
    if more.view is not None:
        shown["view"] = more.view
    if more.follows:
        shown["follows"] = _stamp_fields(more.follows)
    if more.part is not None:
        shown["part"] = {"transfer": more.part.transfer, "offset": more.part.offset, "total": more.part.total}
    return shown


def extension_of(shown: dict[str, Any]) -> Extension:
    """Return the extension that JSON describes; a signature cannot be made from it.

    Raises:
        MalformedMessageError: something in it is unknown or of the wrong kind.
    """
    try:
        trace = shown.get("trace")
        more = shown.get("more")
        codec = shown.get("codec")
        return Extension(
            exchange=shown.get("exchange"),
            reply=shown.get("reply", False),
            stream=shown.get("stream", 0),
            stamp=_stamp_of(shown.get("stamp")),
            trace=trace
            and Trace(
                hex_bytes("request_id", trace["request_id"]),
                hex_bytes("parent_id", trace["parent_id"]),
                trace["timestamp"],
                tuple(trace["path"]),
            ),
            codec=Codec[codec.upper()] if codec else None,
            more=more and _more_of(more),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedMessageError(f"the extension is not understood: {error}") from None


def _stamp_of(shown: dict[str, int] | None) -> int:
    return shown["hlc"] << 64 | shown["origin"] if shown else 0


def _more_of(shown: dict[str, Any]) -> More:
    vector = shown.get("version_vector")
    part = shown.get("part")
    return More(
        version_vector=None if vector is None else {int(node): counter for node, counter in vector.items()},
        retry_after=shown.get("retry_after"),
        view=shown.get("view"),
        follows=_stamp_of(shown.get("follows")),
        part=part and Part(part["transfer"], part["offset"], part["total"]),
    )
