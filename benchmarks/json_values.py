"""Values as applications cache them: records as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

_COUNT = 16
_NAMES = ("Ada", "Barbara", "Edsger", "Grace", "Ken", "Leslie", "Margaret", "Niklaus", "Radia", "Tony")
_WORDS = ("cache", "ring", "node", "log", "term", "frame", "peer", "quorum", "lease", "stamp", "shard", "vote", "entry", "index")


def json_values(size: int, rng: random.Random) -> list[bytes]:
    """Return some values, each a list of records.

    Args:
        size: how long each is, in bytes.
        rng: makes their content.
    """
    return [_value(size, rng) for _ in range(_COUNT)]


def _value(size: int, rng: random.Random) -> bytes:
    records = []
    length = 0
    while length < size:
        records.append(json.dumps(_record(rng)))
        length += len(records[-1]) + 2
    return ("[" + ", ".join(records) + "]").encode()[:size]


def _record(rng: random.Random) -> dict[str, Any]:
    return {
        "id": rng.randrange(1 << 32),
        "name": f"{rng.choice(_NAMES)} {rng.choice(_NAMES)}",
        "email": f"{rng.choice(_NAMES).lower()}.{rng.randrange(10_000)}@example.org",
        "created": f"2027-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T{rng.randrange(24):02}:{rng.randrange(60):02}:00Z",
        "active": rng.random() < 0.8,
        "balance": round(rng.uniform(0, 10_000), 2),
        "tags": rng.sample(_WORDS, rng.randrange(1, 5)),
        "note": " ".join(rng.choices(_WORDS, k=rng.randrange(3, 12))),
    }
