from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hypercache.admin.exposition import SHOWN_BOUNDS_SECONDS, Exposition
from hypercache.net.latency import BOUNDS_SECONDS
from hypercache.net.metrics import LINK_COUNTERS, MessageMetrics
from hypercache.wire.messages import SCHEMA, Heartbeat, ReplicateData
from tests.admin.figures import FIGURES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def metrics_with_figures() -> MessageMetrics:
    metrics = MessageMetrics(SCHEMA)
    beats, writes = metrics.meter(Heartbeat.TYPE), metrics.meter(ReplicateData.TYPE)
    beats.sent, writes.sent, writes.errors = 5, 600, 2
    beats.round_trips.record(0.002, 4)
    beats.handled(3, 3 * 0.000_01)
    writes.round_trips.record(0.0302, 600)
    writes.round_trips.record(250.0, 1)
    metrics.meter(0x99).received += 1
    for number, name in enumerate(LINK_COUNTERS, 100):
        setattr(metrics, name, number)
    return metrics


def exposed(metrics: MessageMetrics, accept: str = "") -> dict[str, Metric]:
    body, _ = Exposition(metrics, lambda: FIGURES).render(accept)
    parse = parse_openmetrics if accept else parse_text
    return {metric.name: metric for metric in parse(body.decode())}


def samples(metric: Metric, name: str = "", label: str = "type") -> dict[str, float]:
    wanted = name or (f"{metric.name}_total" if metric.type == "counter" else metric.name)
    return {sample.labels.get(label, ""): sample.value for sample in metric.samples if sample.name == wanted}


def value(metric: Metric) -> float:
    (found,) = samples(metric).values()
    return found


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_messages_are_told_as_get_stats_tells_them(accept: str) -> None:
    metrics = metrics_with_figures()
    stats, told = metrics.get_stats(), exposed(metrics, accept)
    for name in ("Heartbeat", "ReplicateData", "Unknown_99"):
        assert samples(told["hypercache_messages_sent"])[name] == stats[f"{name}_sent"]
        assert samples(told["hypercache_messages_received"])[name] == stats[f"{name}_received"]
        assert samples(told["hypercache_message_errors"])[name] == stats[f"{name}_errors"]
    for name in LINK_COUNTERS:
        assert value(told[f"hypercache_{name}"]) == stats[name] >= 100
        assert told[f"hypercache_{name}"].documentation == LINK_COUNTERS[name]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_histograms_hold_every_duration(accept: str) -> None:
    told = exposed(metrics_with_figures(), accept)
    round_trips = told["hypercache_request_round_trip_seconds"]
    assert round_trips.type == "histogram"
    assert samples(round_trips, f"{round_trips.name}_count") == {"Heartbeat": 4, "ReplicateData": 601}
    assert samples(round_trips, f"{round_trips.name}_sum") == pytest.approx({"Heartbeat": 0.008, "ReplicateData": 268.12})
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in round_trips.samples
        if sample.name.endswith("_bucket") and sample.labels["type"] == "ReplicateData"
    }
    assert list(buckets) == [*SHOWN_BOUNDS_SECONDS, float("inf")]
    assert (buckets[0.02], buckets[0.05], buckets[10.0], buckets[float("inf")]) == (0, 600, 600, 601)
    handling = told["hypercache_message_handling_seconds"]
    # Types that were never handled have no histogram.
    assert samples(handling, f"{handling.name}_count") == {"Heartbeat": 3}


def test_the_buckets_that_are_told_are_among_those_that_are_kept() -> None:
    assert set(SHOWN_BOUNDS_SECONDS) <= set(BOUNDS_SECONDS)


def test_figures_of_the_node_are_told() -> None:
    told = exposed(MessageMetrics(SCHEMA))
    clients = ("clients", "clients_accepted", "clients_rejected", "clients_cut", "clients_received_bytes", "clients_sent_bytes")
    assert [value(told[f"hypercache_{name}"]) for name in clients] == [1, 2, 3, 4, 5, 6]
    stores = ("keys", "memory_bytes", "hits", "misses", "expired_keys", "evicted_keys")
    found = [samples(told[f"hypercache_store_{name}"], label="store") for name in stores]
    assert found == [{"default": 11.0 + place, "sessions": 21.0 + place} for place in range(6)]
    replication = ("outbox_keys", "full_copies", "oversized_records", "refused_messages")
    assert [value(told[f"hypercache_replication_{name}"]) for name in replication] == [34, 35, 36, 37]
    assert [value(told[f"hypercache_members{name}"]) for name in ("", "_linked", "_level")] == [31, 32, 33]
    raft = ("term", "leads", "committed_index", "applied_index", "proposals", "log_bytes", "leaderships", "log_writes", "disk_full")
    assert [value(told[f"hypercache_raft_{name}"]) for name in raft] == [51, 1, 53, 54, 55, 56, 57, 58, 0]
    assert samples(told["hypercache_links"], label="state") == {"connected": 41, "closing": 42}
    assert value(told["hypercache_links_unfinished_bytes"]) == 43
    assert value(told["hypercache_node_boot"]) == 7
    (info,) = told["hypercache_node_info"].samples
    assert info.labels == {"name": 'a "quoted" node', "id": "18446744073709551615", "version": "1.2.3"}


def test_figures_of_the_process_are_told() -> None:
    told = exposed(MessageMetrics(SCHEMA))
    assert value(told["process_resident_memory_bytes"]) > 1 << 20
    assert {"process_cpu_seconds", "process_open_fds", "python_gc_collections"} <= set(told)


def test_several_nodes_in_one_process_tell_their_own_figures() -> None:
    one, two = metrics_with_figures(), MessageMetrics(SCHEMA)
    expositions = [Exposition(metrics, lambda: FIGURES) for metrics in (one, two)]
    told = [expositions[place].render("")[0] for place in (0, 1)]
    assert b'hypercache_messages_sent_total{type="Heartbeat"} 5.0' in told[0]
    assert b"Heartbeat" not in told[1]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("text/plain;version=nonsense", "text/plain"),
        ("application/openmetrics-text", "application/openmetrics-text"),
        ("application/openmetrics-text;version=nonsense", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", "application/openmetrics-text"),
    ],
)
def test_openmetrics_is_told_to_those_who_accept_it(accept: str, kind: str) -> None:
    body, content_type = Exposition(MessageMetrics(SCHEMA), lambda: FIGURES).render(accept)
    assert content_type.startswith(kind + ";")
    assert body.endswith(b"# EOF\n") == (kind != "text/plain")


def test_the_documentation_names_every_metric_and_no_other() -> None:
    metrics = metrics_with_figures()
    documented = set(re.findall(r"^\| `(hypercache_\w+)", DOCS.read_text(), re.MULTILINE))
    told = {f"{name}_total" if metric.type == "counter" else name for name, metric in exposed(metrics).items()}
    assert documented == {name for name in told if name.startswith("hypercache_")}
