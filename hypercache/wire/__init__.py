"""The binary protocol between nodes: bytes in, events out."""

from hypercache.wire.codes import Capability, ErrorCode, NodeType, Operation, Status
from hypercache.wire.decoder import Decoder
from hypercache.wire.extension import Extension, More, encode_extended
from hypercache.wire.messages import SCHEMA
from hypercache.wire.schema import Message, Schema

__all__ = [
    "SCHEMA",
    "Capability",
    "Decoder",
    "ErrorCode",
    "Extension",
    "Message",
    "More",
    "NodeType",
    "Operation",
    "Schema",
    "Status",
    "encode_extended",
]
