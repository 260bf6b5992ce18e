"""Counts and latency of the cluster protocol, by message type."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercache.wire.schema import Schema


class Meter:
    """The figures of one message type.

    Attributes:
        sent, received, errors: counts.
        latency_seconds: the running average of the seed: each measurement counts half, those before it the other half.
        slowest_seconds: the longest that one took; of a run, its average.
    """

    __slots__ = ("errors", "latency_seconds", "received", "sent", "slowest_seconds")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.errors = 0
        self.latency_seconds = 0.0
        self.slowest_seconds = 0.0

    def handled(self, count: int, seconds: float) -> None:
        """Record that a run of ``count`` messages came, which took ``seconds`` together."""
        if count:
            self.received += count
            self.took(seconds / count)

    def took(self, seconds: float) -> None:
        """Record how long one message took."""
        self.latency_seconds = (self.latency_seconds + seconds) / 2
        if seconds > self.slowest_seconds:
            self.slowest_seconds = seconds


class MessageMetrics:
    """The figures of all types.

    Args:
        schema: gives the names.

    Attributes:
        unexpected_answers: answers that nobody waited for.
        garbage_bytes: bytes that belonged to no frame.
        links_broken: links that were closed for what came over them.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._meters: dict[int, Meter] = {}
        self.unexpected_answers = 0
        self.garbage_bytes = 0
        self.links_broken = 0

    def meter(self, message_type: int) -> Meter:
        """Return the figures of a type."""
        meter = self._meters.get(message_type)
        if meter is None:
            meter = self._meters[message_type] = Meter()
        return meter

    def get_stats(self) -> dict[str, int | float]:
        """Return all figures under the seed's keys: ``Heartbeat_sent``, ``_received``, ``_errors``, ``_latency_ms``.

        ``_slowest_ms`` is our own.
        """
        stats: dict[str, int | float] = {}
        for message_type, meter in sorted(self._meters.items()):
            cls = self._schema.by_type(message_type)
            name = cls.__name__ if cls is not None else f"Unknown_{message_type:02x}"
            stats[f"{name}_sent"] = meter.sent
            stats[f"{name}_received"] = meter.received
            stats[f"{name}_errors"] = meter.errors
            stats[f"{name}_latency_ms"] = meter.latency_seconds * 1000
            stats[f"{name}_slowest_ms"] = meter.slowest_seconds * 1000
        return stats
