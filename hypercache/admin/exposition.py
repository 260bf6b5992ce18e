"""The node's figures for Prometheus: what `/stats` tells, under the names that Prometheus' practice asks for (docs/metrics.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from hypercache.net.metrics import LINK_COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from hypercache.net.latency import Latency
    from hypercache.net.metrics import MessageMetrics

_OPENMETRICS: Final = "application/openmetrics-text"

SHOWN_BOUNDS_SECONDS: Final = (*(float(f"{step}e{exponent}") for exponent in range(-6, 1) for step in (1, 2, 5)), 10.0)
"""The buckets' bounds that Prometheus is told, a third of those there are: each is a line a type and a scrape."""

_BUCKET_NAMES: Final = tuple(floatToGoString(bound) for bound in SHOWN_BOUNDS_SECONDS)


class _Figure(msgspec.Struct, frozen=True):
    """A figure of `/stats` that Prometheus is told too.

    Attributes:
        key: its key there, in its section.
        name: Prometheus' name, without ``_total``.
        family: CounterMetricFamily where it only grows, else GaugeMetricFamily.
        help: what it says.
    """

    key: str
    name: str
    family: type[CounterMetricFamily | GaugeMetricFamily]
    help: str


_CLIENTS: Final = (
    _Figure("connected", "hypercache_clients", GaugeMetricFamily, "Clients that are connected."),
    _Figure("accepted", "hypercache_clients_accepted", CounterMetricFamily, "Connections that clients opened."),
    _Figure("rejected", "hypercache_clients_rejected", CounterMetricFamily, "Clients refused because too many were connected."),
    _Figure("cut", "hypercache_clients_cut", CounterMetricFamily, "Clients cut because they did not read their replies."),
    _Figure("received_bytes", "hypercache_clients_received_bytes", CounterMetricFamily, "Bytes received from clients."),
    _Figure("sent_bytes", "hypercache_clients_sent_bytes", CounterMetricFamily, "Bytes of replies to clients."),
)
_STORES: Final = (
    _Figure("keys", "hypercache_store_keys", GaugeMetricFamily, "Keys in the store."),
    _Figure("bytes", "hypercache_store_memory_bytes", GaugeMetricFamily, "Memory that the store takes, about."),
    _Figure("hits", "hypercache_store_hits", CounterMetricFamily, "Look-ups that found their key."),
    _Figure("misses", "hypercache_store_misses", CounterMetricFamily, "Look-ups that did not find their key."),
    _Figure("expired", "hypercache_store_expired_keys", CounterMetricFamily, "Keys whose time ran out."),
    _Figure("evicted", "hypercache_store_evicted_keys", CounterMetricFamily, "Keys dropped to make room."),
)
_REPLICATION: Final = (
    _Figure("hypercache_members", "hypercache_members", GaugeMetricFamily, "Members of the cluster, this node included."),
    _Figure("hypercache_linked_members", "hypercache_members_linked", GaugeMetricFamily, "Other members with a link."),
    _Figure("hypercache_level_members", "hypercache_members_level", GaugeMetricFamily, "Other members that have all writes."),
    _Figure("hypercache_outbox_keys", "hypercache_replication_outbox_keys", GaugeMetricFamily, "Changed keys not sent yet."),
    # Those below are of the links that there are: they become less when one ends.
    _Figure(
        "hypercache_full_copies",
        "hypercache_replication_full_copies",
        GaugeMetricFamily,
        "Full copies begun, by the present links.",
    ),
    _Figure(
        "hypercache_oversized_records",
        "hypercache_replication_oversized_records",
        GaugeMetricFamily,
        "Records too large for the peer, by the present links.",
    ),
    _Figure(
        "hypercache_refused_messages",
        "hypercache_replication_refused_messages",
        GaugeMetricFamily,
        "Messages that the peer answered with an error, by the present links.",
    ),
)
_RAFT: Final = (
    _Figure("term", "hypercache_raft_term", GaugeMetricFamily, "The current term; 0 without a part in a group."),
    _Figure("leads", "hypercache_raft_leads", GaugeMetricFamily, "1 while this node leads."),
    _Figure("committed", "hypercache_raft_committed_index", GaugeMetricFamily, "The last entry known to be committed."),
    _Figure("applied", "hypercache_raft_applied_index", GaugeMetricFamily, "The last entry applied here."),
    _Figure("proposals", "hypercache_raft_proposals", GaugeMetricFamily, "Proposals of this node without an answer."),
    _Figure("log_bytes", "hypercache_raft_log_bytes", GaugeMetricFamily, "Entries held in memory."),
    _Figure("leaderships", "hypercache_raft_leaderships", CounterMetricFamily, "How often this node came to lead."),
    _Figure("writes", "hypercache_raft_log_writes", CounterMetricFamily, "Batches written to the log and made durable."),
    _Figure("disk_full", "hypercache_raft_disk_full", GaugeMetricFamily, "1 while the disk takes nothing more of the log."),
)


class NodeCollector(Collector):
    """Makes Prometheus' metrics of a node's figures, whenever they are asked for.

    Args:
        metrics: the figures of the cluster protocol.
        figures: returns the other figures of the node, as `/stats` has them: the sections ``node``, ``clients``, ``stores``,
            ``replication``, ``raft`` and ``links``.
    """

    def __init__(self, metrics: MessageMetrics, figures: Callable[[], dict[str, Any]]) -> None:
        self._metrics = metrics
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        figures = self._figures()
        yield from _of_node(figures["node"])
        for figure in _CLIENTS:
            yield figure.family(figure.name, figure.help, value=figures["clients"][figure.key])
        for figure in _STORES:
            family = figure.family(figure.name, figure.help, labels=("store",))
            for store, values in figures["stores"].items():
                family.add_metric((store,), values[figure.key])
            yield family
        for figure in _REPLICATION:
            yield figure.family(figure.name, figure.help, value=figures["replication"][figure.key])
        for figure in _RAFT:
            yield figure.family(figure.name, figure.help, value=figures["raft"][figure.key])
        yield from _of_links(figures["links"])
        for name, what in LINK_COUNTERS.items():
            yield CounterMetricFamily(f"hypercache_{name}", what, value=getattr(self._metrics, name))
        yield from self._of_messages()

    def _of_messages(self) -> Iterator[Metric]:
        by_type = ("type",)
        sent = CounterMetricFamily("hypercache_messages_sent", "Messages sent to peers.", labels=by_type)
        received = CounterMetricFamily("hypercache_messages_received", "Messages received from peers.", labels=by_type)
        errors = CounterMetricFamily(
            "hypercache_message_errors", "Messages received that could not be served, and errors received.", labels=by_type
        )
        round_trips = HistogramMetricFamily(
            "hypercache_request_round_trip_seconds", "From sending a request until its answer was read.", labels=by_type
        )
        handling = HistogramMetricFamily(
            "hypercache_message_handling_seconds", "From handling a message until its answer was ready.", labels=by_type
        )
        for name, meter in self._metrics:
            label = (name,)
            sent.add_metric(label, meter.sent)
            received.add_metric(label, meter.received)
            errors.add_metric(label, meter.errors)
            _add_histogram(round_trips, label, meter.round_trips)
            _add_histogram(handling, label, meter.handling)
        yield from (sent, received, errors, round_trips, handling)


def _of_node(node: dict[str, Any]) -> Iterator[Metric]:
    told = {key: str(node[key]) for key in ("name", "id", "version")}
    yield InfoMetricFamily("hypercache_node", "Which node this is.", value=told)
    yield GaugeMetricFamily("hypercache_node_boot", "How often the node has started with its data directory.", value=node["boot"])


def _of_links(links: dict[str, Any]) -> Iterator[Metric]:
    states = GaugeMetricFamily("hypercache_links", "Links to peers, by the state of their life cycle.", labels=("state",))
    for state, count in links["states"].items():
        states.add_metric((state,), count)
    yield states
    unfinished = links["unfinished_bytes"]
    yield GaugeMetricFamily(
        "hypercache_links_unfinished_bytes", "Memory that unfinished frames of all links take.", value=unfinished
    )


def _add_histogram(family: HistogramMetricFamily, label: tuple[str], latency: Latency) -> None:
    count = latency.count
    if count:
        buckets = list(zip(_BUCKET_NAMES, latency.cumulative(SHOWN_BOUNDS_SECONDS), strict=True))
        family.add_metric(label, [*buckets, ("+Inf", count)], latency.total_seconds)


class Exposition:
    """What `/metrics` answers: a node's figures, and what the process takes.

    Args:
        metrics: the figures of the cluster protocol.
        figures: as of `NodeCollector`.
    """

    def __init__(self, metrics: MessageMetrics, figures: Callable[[], dict[str, Any]]) -> None:
        # Its own, so that several nodes can live in one process.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(metrics, figures))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text and its content type.

        Args:
            accept: the header of the request: OpenMetrics where it names that, else Prometheus' text format.
        """
        # Not the header itself: the library fails on a version that is no number.
        encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
        return encode(self._registry), content_type
