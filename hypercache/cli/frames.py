"""``hypercache inspect``, ``encode`` and ``schema``: frames as text and back."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

import click

from hypercache.cli.plugins import understood
from hypercache.errors import HyperCacheError, MalformedMessageError
from hypercache.wire import SCHEMA, encode_extended
from hypercache.wire.capture import streams_of
from hypercache.wire.header import BASE_VERSION, EXTENDED_VERSION, frame
from hypercache.wire.inspector import Inspection, as_json, as_text
from hypercache.wire.jsonform import extension_of, hex_bytes, message_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypercache.wire.schema import Message, Schema

_CHUNK_BYTES: Final = 1 << 20


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _unhexed(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of hex digits; white space counts for nothing."""
    left = b""
    for chunk in _chunks(file):
        digits = left + b"".join(chunk.split())
        whole = len(digits) & ~1
        left = digits[whole:]
        yield _from_hex(digits[:whole])
    if left:
        raise click.ClickException("the input has an odd number of hex digits")


def _from_hex(digits: bytes) -> bytes:
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError as error:
        raise click.ClickException(f"the input is not hex: {error}") from None


def _show(chunks: Iterable[bytes], schema: Schema, as_lines: bool) -> bool:
    """Print every row; return whether all was sound."""
    inspection = Inspection(chunks, schema)
    for row in inspection.rows():
        if as_lines:
            click.echo(as_json(row))
        else:
            click.echo(as_text(row, inspection.payload_at(row) if row.get("valid") else b""))
    return inspection.sound


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--json", "as_lines", is_flag=True, help="One JSON object a line.")
@click.option("--hex", "is_hex", is_flag=True, help="The input is hex digits.")
@click.option("--pcap", "is_capture", is_flag=True, help="The input is a pcap capture; each TCP stream is followed.")
def inspect(file: BinaryIO, as_lines: bool, is_hex: bool, is_capture: bool) -> None:
    """Show the frames in FILE (- for standard input). Exits with 1 where not every byte belongs to a sound frame."""
    sound = True
    known = understood()
    if is_capture:
        try:
            streams = streams_of(file)
        except MalformedMessageError as error:
            raise click.ClickException(str(error)) from None
        for (source, target), data in streams.items():
            click.echo(json.dumps({"stream": {"from": source, "to": target}}) if as_lines else f"Stream {source} > {target}\n")
            sound &= _show([data], known, as_lines)
    else:
        sound = _show(_unhexed(file) if is_hex else _chunks(file), known, as_lines)
    raise SystemExit(0 if sound else 1)


@click.command()
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
def encode(file: TextIO) -> None:
    """Turn JSON lines, as inspect --json prints them, into frames on standard output."""
    out = sys.stdout.buffer
    known = understood()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            out.write(frame_of(json.loads(line), known))
        except (HyperCacheError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise click.ClickException(f"line {number}: {error}") from None


def frame_of(row: dict[str, Any], schema: Schema = SCHEMA) -> bytes:
    """Return the frame that a row describes.

    Args:
        row: as the inspector has it.
        schema: the messages that are understood.

    Raises:
        MalformedMessageError: the row is no frame that could be sent; the text says why.
    """
    if not isinstance(row, dict) or not isinstance(row.get("fields"), dict):
        raise MalformedMessageError("a frame needs an object with name or type, and fields")
    version = row.get("version", EXTENDED_VERSION if "extension" in row else BASE_VERSION)
    cls = _class_of(row, schema)
    if cls is None:
        if version != BASE_VERSION:
            raise MalformedMessageError("an undeclared type can be encoded in version 1 only")
        return frame(version, row["type"], hex_bytes("payload", row["fields"].get("payload")))
    message = message_of(cls, row["fields"])
    if version == BASE_VERSION:
        return message.encode_frame()
    if version == EXTENDED_VERSION:
        return encode_extended(message, extension_of(row.get("extension", {})))
    return frame(version, cls.TYPE, message.encode_payload())


def _class_of(row: dict[str, Any], schema: Schema) -> type[Message] | None:
    name, number = row.get("name"), row.get("type")
    if name is not None:
        cls = schema.by_name(name)
        if cls is None:
            raise MalformedMessageError(f"no message is called {name!r}")
        return cls
    if not isinstance(number, int) or not 0 <= number <= 255:
        raise MalformedMessageError("a frame needs a name, or a type from 0 to 255")
    return schema.by_type(number)


@click.command()
@click.option("--json", "as_data", is_flag=True, help="JSON instead of a table.")
def schema(as_data: bool) -> None:
    """Show the declaration of every message, plug-ins' included."""
    known = understood()
    if as_data:
        click.echo(json.dumps(known.document(), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    from hypercache.wire.document import layout

    table = Table("type", "name", "payload, in order")
    for cls in known:
        table.add_row(f"0x{cls.TYPE:02X}", cls.__name__, layout(cls) or "empty")
    Console().print(table)
