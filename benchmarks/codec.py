"""Typed decode and encode alone."""

from __future__ import annotations

import time
from functools import partial
from statistics import median

from benchmarks.report import Row
from hypercache.wire import Decoder, Message
from hypercache.wire.messages import Heartbeat, ReplicateData, VoteRequest

WANTED_PER_SECOND = 1_000_000
_BATCH = 500


def run(rounds: int, quick: bool) -> list[Row]:
    """Return a row a message and direction."""
    rows = []
    repeats = 40 if quick else 400
    for message in (ReplicateData(1, 0, "", b"key:%012d" % 5, bytes(66)), Heartbeat(1, 2, 3), VoteRequest(1, 2, 3, 4)):
        data = message.encode_frame() * _BATCH
        name = type(message).__name__
        decode = median(_rate(partial(_decode, data), repeats) for _ in range(rounds))
        encode = median(_rate(partial(_encode, message), repeats) for _ in range(rounds))
        rows.append(Row(f"{name} decoded/s", decode, WANTED_PER_SECOND, decode / WANTED_PER_SECOND, 1.0))
        rows.append(Row(f"{name} encoded/s", encode, WANTED_PER_SECOND, encode / WANTED_PER_SECOND, None))
    return rows


def _decode(data: bytes) -> None:
    Decoder().feed(data)


def _encode(message: Message) -> None:
    encode = message.encode_frame
    for _ in range(_BATCH):
        encode()


def _rate(call: object, repeats: int) -> float:
    assert callable(call)
    started = time.process_time()
    for _ in range(repeats):
        call()
    return repeats * _BATCH / (time.process_time() - started)
