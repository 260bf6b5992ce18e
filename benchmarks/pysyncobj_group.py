"""Three processes that share a dictionary by PySyncObj, for one measurement: they are busy even when nobody asks."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from benchmarks.asking import Took
from benchmarks.processes import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MEMBERS = 3
WAYS = ("as shipped, each at once", "as shipped, together", "durable, each at once", "durable, together")
"""How it can be set up; `benchmarks.pysyncobj_peer` knows what they mean."""


class Order(msgspec.Struct, frozen=True):
    """How long to put values, and how many of them at a time; 0 seconds ask only who leads."""

    seconds: float
    in_flight: int


class Answer(msgspec.Struct, frozen=True):
    """How many values were committed, and what it took; whether this process leads."""

    count: int
    took: Took
    leads: bool


def puts_per_second(directory: Path, way: str, order: Order) -> float:
    """Return how many puts a second the leader's process has confirmed.

    Args:
        directory: where they keep their logs; it is made.
        way: one of `WAYS`.
        order: what the leader is told.
    """
    directory.mkdir()
    with _running(directory, way) as processes:
        leading: list[subprocess.Popen[str]] = []

        def known() -> bool:
            leading[:] = [process for process in processes if _asked(process, Order(0, 0)).leads]
            return bool(leading)

        wait_for(known, "PySyncObj's leader")
        answer = _asked(leading[0], order)
    return answer.count / answer.took.seconds


@contextlib.contextmanager
def _running(directory: Path, way: str) -> Iterator[list[subprocess.Popen[str]]]:
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(_MEMBERS)]
    with contextlib.ExitStack() as running:
        processes = []
        for number, own in enumerate(addresses):
            others = [each for each in addresses if each != own]
            command = [sys.executable, "-m", "benchmarks.pysyncobj_peer", str(directory / f"{number}.log"), way, own, *others]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            running.enter_context(process)
            running.callback(process.kill)
            processes.append(process)
        for process in processes:
            _line(process)
        yield processes


def _asked(process: subprocess.Popen[str], order: Order) -> Answer:
    assert process.stdin
    process.stdin.write(msgspec.json.encode(order).decode() + "\n")
    process.stdin.flush()
    return msgspec.json.decode(_line(process), type=Answer)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process of PySyncObj's has ended")
    return line
