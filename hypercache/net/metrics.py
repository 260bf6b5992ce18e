"""What a node counts and times of the cluster protocol: by message type, and of its links (docs/metrics.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, get_type_hints

from hypercache.net.latency import PERCENTILES, Latency
from hypercache.net.lifecycle import LinkState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hypercache.net.link import PeerLink
    from hypercache.wire.schema import Schema


class LinkCounters:
    """What is counted of all links: each counter is declared here, with what it counts, and shown wherever figures are."""

    auth_failures: Annotated[int, "Peers that did not prove who they are."] = 0
    deadlines_missed: Annotated[int, "Requests that were not answered in time."] = 0
    garbage_bytes: Annotated[int, "Bytes received that belonged to no frame."] = 0
    handshakes_dropped: Annotated[int, "Links cut because too many shook hands at once."] = 0
    links_broken: Annotated[int, "Links closed for what came over them."] = 0
    links_cut: Annotated[int, "Links cut because the peer did not read."] = 0
    links_replaced: Annotated[int, "Links closed because another to the same node stays."] = 0
    rate_limited: Annotated[int, "Messages over the rate limit of their link, held back or refused."] = 0
    refused_requests: Annotated[int, "Requests and streams not begun because too many are open."] = 0
    refused_stream_messages: Annotated[int, "Messages of streams that a full window or too many streams kept out."] = 0
    tls_failures: Annotated[int, "Connections whose TLS failed, or that spoke TLS on a port without."] = 0
    unexpected_answers: Annotated[int, "Answers that nobody waited for."] = 0


LINK_COUNTERS: Final[dict[str, str]] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(LinkCounters, include_extras=True).items()
}
"""The names of the counters, and what they count."""


class Meter:
    """The figures of one message type.

    Attributes:
        sent, received: counts.
        errors: how many received could not be served; of GenericError, how many were received.
        round_trips: how long requests of this type took, from sending one until its answer was read.
        handling: how long it took here to handle messages of this type, until their answers were ready.
    """

    __slots__ = ("errors", "handling", "received", "round_trips", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.errors = 0
        self.round_trips = Latency()
        self.handling = Latency()

    def handled(self, count: int, seconds: float, later: int = 0) -> None:
        """Record that a run of messages came; the handling of each counts as the average of the run.

        Args:
            count: how many.
            seconds: how long they took together.
            later: how many of them have answers that are not ready; `took` is called for each when it is.
        """
        self.received += count
        if count > later:
            self.handling.record(seconds / count, count - later)

    def took(self, seconds: float) -> None:
        """Record how long it took until the answer to one message was ready, where that came later."""
        self.handling.record(seconds)


class MessageMetrics(LinkCounters):
    """The figures of all types, and the counters of all links.

    Args:
        schema: gives the names.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._meters: dict[int, Meter] = {}

    def __iter__(self) -> Iterator[tuple[str, Meter]]:
        """Yield the figures of each type that was sent or received, under the name of its class."""
        for message_type, meter in sorted(self._meters.items()):
            cls = self._schema.by_type(message_type)
            yield cls.__name__ if cls is not None else f"Unknown_{message_type:02x}", meter

    def meter(self, message_type: int) -> Meter:
        """Return the figures of a type."""
        meter = self._meters.get(message_type)
        if meter is None:
            meter = self._meters[message_type] = Meter()
        return meter

    def message_stats(self) -> dict[str, int | float]:
        """Return the figures of each type under the seed's keys, ``Heartbeat_sent`` for one, and ours.

        The seed's are ``_sent``, ``_received``, ``_errors`` and ``_latency_ms``: the running average of round trips, for the seed
        records latency with what is sent. ``_handling_ms`` is the same average of what was received. Of both there are
        ``_latency_p50_ms``, ``_p90``, ``_p99``, ``_p999`` and ``_slowest``.
        """
        stats: dict[str, int | float] = {}
        for name, meter in self:
            stats[f"{name}_sent"] = meter.sent
            stats[f"{name}_received"] = meter.received
            stats[f"{name}_errors"] = meter.errors
            for kind, latency in (("latency", meter.round_trips), ("handling", meter.handling)):
                stats[f"{name}_{kind}_ms"] = latency.average_seconds * 1000
                for percentile, thousandths in PERCENTILES.items():
                    stats[f"{name}_{kind}_{percentile}_ms"] = latency.percentile(thousandths) * 1000
                stats[f"{name}_{kind}_slowest_ms"] = latency.slowest_seconds * 1000
        return stats

    def link_stats(self) -> dict[str, int]:
        """Return the counters of all links by their names."""
        return {name: getattr(self, name) for name in LINK_COUNTERS}

    def get_stats(self) -> dict[str, int | float]:
        """Return all figures: `message_stats` and `link_stats`."""
        return self.message_stats() | self.link_stats()


def links_by_state(links: Iterable[PeerLink]) -> dict[str, int]:
    """Return how many links are in each state."""
    counts = dict.fromkeys(LinkState, 0)
    for link in links:
        counts[link.state] += 1
    return {state.name.lower(): count for state, count in counts.items()}
