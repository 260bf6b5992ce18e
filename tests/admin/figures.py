"""Figures of a node that does not exist."""

from __future__ import annotations

from typing import Any

FIGURES: dict[str, Any] = {
    "node": {"name": 'a "quoted" node', "id": (1 << 64) - 1, "boot": 7, "version": "1.2.3"},
    "clients": {"connected": 1, "accepted": 2, "rejected": 3, "cut": 4, "received_bytes": 5, "sent_bytes": 6},
    "stores": {
        "default": {"keys": 11, "bytes": 12, "hits": 13, "misses": 14, "expired": 15, "evicted": 16},
        "sessions": {"keys": 21, "bytes": 22, "hits": 23, "misses": 24, "expired": 25, "evicted": 26},
    },
    "replication": {
        "hypercache_members": 31,
        "hypercache_linked_members": 32,
        "hypercache_level_members": 33,
        "hypercache_outbox_keys": 34,
        "hypercache_full_copies": 35,
        "hypercache_oversized_records": 36,
        "hypercache_refused_messages": 37,
    },
    "raft": {
        "term": 51,
        "leads": 1,
        "leader": 52,
        "committed": 53,
        "applied": 54,
        "proposals": 55,
        "log_bytes": 56,
        "leaderships": 57,
        "writes": 58,
        "disk_full": 0,
    },
    "links": {"states": {"connected": 41, "closing": 42}, "unfinished_bytes": 43},
}
