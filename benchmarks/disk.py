"""What the disk takes to make a hundred bytes durable: the floor under every figure of a log that is synced."""

from __future__ import annotations

import os
import time
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 100
_TIMES = 300


def sync_microseconds(directory: Path) -> float:
    """Return the median of many fdatasync calls, each after an append, in microseconds."""
    took = []
    file = os.open(directory / "appended", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(_TIMES):
            os.write(file, bytes(_BYTES))
            started = time.perf_counter()
            os.fdatasync(file)
            took.append(time.perf_counter() - started)
    finally:
        os.close(file)
    return median(took) * 1e6
