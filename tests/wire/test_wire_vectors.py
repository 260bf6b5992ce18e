"""The frames of an independent implementation, and what comes from the one declaration of each message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hypercache.cli.frames import encode, inspect, schema
from hypercache.errors import MalformedMessageError, MessageTooLargeError, SchemaError
from hypercache.wire import SCHEMA, Decoder, Schema
from hypercache.wire.document import BEGIN, END, message_table
from hypercache.wire.inspector import Inspection
from hypercache.wire.jsonform import fields_of, message_of
from hypercache.wire.kinds import length, text, u64
from hypercache.wire.messages import GenericError, HashRingQuery, Heartbeat
from hypercache.wire.schema import Message

VECTORS = [json.loads(line) for line in (Path(__file__).parent / "vectors.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_decodes_to_its_fields_and_encodes_to_its_bytes(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(str(vector["hex"]))
    cls = SCHEMA.by_name(str(vector["name"]))
    assert cls is not None
    (message,) = Decoder().feed(raw)
    assert isinstance(message, cls)
    assert fields_of(message) == vector["fields"]
    assert message.encode_frame() == raw
    rebuilt = message_of(cls, vector["fields"])
    assert rebuilt == message


def test_the_examples_of_the_specification() -> None:
    heartbeat = "48435241013200000018038320c60000000000000001185d72f95fc3df15000004d200000000"
    assert Heartbeat(1, 1755685845123456789, 1234).encode_frame().hex() == heartbeat
    assert HashRingQuery(1).encode_frame().hex() == "48435241014100000010fbc05f1600000000000000010000000000000000"


def test_inspect_and_encode_are_inverse() -> None:
    raw = b"".join(bytes.fromhex(vector["hex"]) for vector in VECTORS)
    runner = CliRunner()
    rows = runner.invoke(inspect, ["--json", "-"], input=raw)
    assert rows.exit_code == 0
    assert runner.invoke(encode, ["-"], input=rows.stdout_bytes).stdout_bytes == raw


def test_a_row_of_inspect_has_the_keys_of_the_specification() -> None:
    raw = Heartbeat(1, 1755685845123456789, 1234).encode_frame() + b"x" * 17 + b"HCRA" + b"\1" * 5
    result = CliRunner().invoke(inspect, ["--json"], input=raw)
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "offset": 0,
            "version": 1,
            "type": 50,
            "name": "Heartbeat",
            "length": 24,
            "checksum": 58925254,
            "valid": True,
            "fields": {"node_id": 1, "timestamp": 1755685845123456789, "load": 1234},
        },
        {"offset": 38, "garbage": 17},
        {"offset": 55, "truncated": True, "available": 9},
    ]


def test_encode_names_the_line_and_the_field_that_is_wrong() -> None:
    line = json.dumps({"name": "Heartbeat", "fields": {"node_id": -1, "timestamp": 0, "load": 0}})
    result = CliRunner().invoke(encode, [], input=line)
    assert result.exit_code == 1
    assert "line 1" in result.output
    assert "Heartbeat.node_id" in result.output


def test_the_schema_is_shown_as_json() -> None:
    shown = json.loads(CliRunner().invoke(schema, ["--json"]).stdout)
    names = {message["name"]: message["type"] for message in shown["messages"]}
    assert names["ReplicateData"] == 0x20
    assert names["GenericError"] == 0xFF


def test_the_documented_table_is_current() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire-protocol.md").read_text()
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == message_table()


class Note(Message, frozen=True):
    """A message of a third party."""

    TYPE = 0x90
    PARTS = (u64("number"), length("words", 2), text("words"))
    number: int
    words: str


def test_a_message_of_a_third_party_is_declared_in_the_same_way() -> None:
    extended = Schema([Note], extends=SCHEMA)
    message = Note(7, "héllo")
    assert Decoder(extended).feed(message.encode_frame()) == [message]
    assert SCHEMA.by_type(0x90) is None
    assert extended.hash() != SCHEMA.hash()


def test_a_type_that_is_taken_and_a_wrong_declaration_are_refused() -> None:
    class Other(Message, frozen=True):
        TYPE = 0x32
        PARTS = (u64("number"),)
        number: int

    class Lacking(Message, frozen=True):
        TYPE = 0x91
        PARTS = (text("words"),)
        words: str

    with pytest.raises(SchemaError, match="taken"):
        Schema([Other], extends=SCHEMA)
    with pytest.raises(SchemaError, match="lengths"):
        Schema([Lacking])


def test_a_field_that_does_not_fit_is_refused_by_the_encoder() -> None:
    with pytest.raises(MessageTooLargeError):
        GenericError(1, 0, "x" * 70000).encode_frame()
    with pytest.raises(MessageTooLargeError):
        Heartbeat(1 << 64, 0, 0).encode_frame()


def test_a_text_that_is_not_utf8_is_malformed() -> None:
    with pytest.raises(MalformedMessageError):
        GenericError.decode_payload(b"\0\1\0\2\0\0\0\0\xff\xff")


def test_inspection_holds_no_more_than_a_frame_and_a_piece_of_a_long_input() -> None:
    frame = GenericError(1, 0, "x" * 5000).encode_frame()
    inspection = Inspection(frame * 20 for _ in range(200))
    held = [len(inspection.held()) for _ in inspection.rows()]
    assert len(held) == 4000
    assert max(held) <= 22 * len(frame)
