"""A real node's figures as Prometheus reads them."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from hypercache.wire.messages import Heartbeat, HeartbeatResponse
from tests.conftest import NodeProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.process


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path, "--resp", "0", "--listen", "0", "--admin", "0").wait_ready()
    yield node
    node.kill()


def test_metrics_and_stats_tell_the_same_numbers(node: NodeProcess) -> None:
    answer = HeartbeatResponse(9, 0).encode_frame()
    with socket.create_connection(("127.0.0.1", node.cluster_port), 10) as peer:
        peer.sendall(Heartbeat(1, 9, 3).encode_frame() * 50)
        received = b""
        while len(received) < 50 * len(answer):
            received += peer.recv(1 << 16)
        with redis.Redis(port=node.resp_port) as client:
            client.mset({f"k{number}": "v" for number in range(20)})
            client.get("k1")
            client.get("nothing")
            with urlopen(f"http://{node.admin}/metrics", timeout=10) as page:
                text = page.read().decode()
            with urlopen(f"http://{node.admin}/stats", timeout=10) as page:
                stats = json.load(page)
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    }
    assert told["hypercache_messages_received_total", "Heartbeat"] == stats["messages"]["Heartbeat_received"] == 50
    assert told["hypercache_messages_sent_total", "HeartbeatResponse"] == stats["messages"]["HeartbeatResponse_sent"] == 50
    assert told["hypercache_message_handling_seconds_count", "Heartbeat"] == 50
    assert 0 < stats["messages"]["Heartbeat_handling_p50_ms"] <= stats["messages"]["Heartbeat_handling_p99_ms"]
    assert told["hypercache_links", "connected"] == stats["links"]["states"]["connected"] == 1
    assert told["hypercache_unexpected_answers_total",] == stats["links"]["unexpected_answers"] == 0
    for key, name in (("keys", "keys"), ("bytes", "memory_bytes"), ("hits", "hits_total"), ("misses", "misses_total")):
        sums = [sum(value for labels, value in told.items() if labels[0] == f"hypercache_store_{name}")]
        assert sums == [sum(store[key] for store in stats["stores"].values())]
    assert sum(store["keys"] for store in stats["stores"].values()) == 20
    assert (told["hypercache_clients",], told["hypercache_clients_accepted_total",]) == (1, 1)
    assert told["process_resident_memory_bytes",] > 1 << 20
