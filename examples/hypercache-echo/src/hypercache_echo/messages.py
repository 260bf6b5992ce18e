"""The messages: declared once, understood by the node, by ``hypercache inspect`` and by every peer that has this distribution."""

from __future__ import annotations

from typing import ClassVar

from hypercache.wire import Message
from hypercache.wire.kinds import Part, blob, length, u16, u64


class Echo(Message, frozen=True, gc=False):
    """Asks for its data back, after so many milliseconds."""

    TYPE: ClassVar[int] = 0x80
    ANSWER: ClassVar[int] = 0x81
    IDEMPOTENT: ClassVar[bool] = True
    PARTS: ClassVar[tuple[Part, ...]] = (u16("delay_ms"), length("data", 4), blob("data"))
    delay_ms: int
    data: bytes


class EchoReply(Message, frozen=True, gc=False):
    """The data of an Echo, and the node that it reached."""

    TYPE: ClassVar[int] = 0x81
    PARTS: ClassVar[tuple[Part, ...]] = (u64("node_id"), length("data", 4), blob("data"))
    node_id: int
    data: bytes
