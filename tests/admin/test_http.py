from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from hypercache.admin.exposition import Exposition
from hypercache.admin.http import AdminResource, admin_site
from hypercache.net.metrics import MessageMetrics
from hypercache.wire.messages import SCHEMA, Heartbeat
from tests.admin.figures import FIGURES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Admin:
    """An admin port that listens."""

    def __init__(self) -> None:
        self.metrics = MessageMetrics(SCHEMA)
        self.report: dict[str, Any] | None = None
        self.resource = AdminResource(self._stats, Exposition(self.metrics, lambda: FIGURES), lambda: self.report)
        site: Any = admin_site(self.resource)
        self.port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")

    def _stats(self) -> dict[str, Any]:
        return FIGURES | {"messages": self.metrics.message_stats()}

    async def get(self, path: str, **headers: str) -> tuple[int, str, bytes]:
        request = Request(f"http://127.0.0.1:{self.port.getHost().port}{path}", headers=headers)

        def ask() -> tuple[int, str, bytes]:
            try:
                with urlopen(request, timeout=10) as answer:
                    return answer.status, answer.headers["content-type"], answer.read()
            except HTTPError as error:
                with error:
                    return error.code, error.headers["content-type"], error.read()

        answered: tuple[int, str, bytes] = await deferToThread(ask)
        return answered


@pytest_twisted.async_yield_fixture
async def admin() -> AsyncIterator[Admin]:
    admin = Admin()
    yield admin
    await admin.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_metrics_are_served_in_prometheus_text_format(admin: Admin) -> None:
    admin.metrics.meter(Heartbeat.TYPE).sent = 5
    status, content_type, body = await admin.get("/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    told = {metric.name: metric for metric in text_string_to_metric_families(body.decode())}
    (sample,) = told["hypercache_messages_sent"].samples
    assert (sample.labels, sample.value) == ({"type": "Heartbeat"}, 5.0)
    admin.metrics.meter(Heartbeat.TYPE).sent += 1
    assert b'hypercache_messages_sent_total{type="Heartbeat"} 6.0' in (await admin.get("/metrics"))[2]


@pytest_twisted.ensureDeferred
async def test_openmetrics_is_served_to_a_client_that_asks(admin: Admin) -> None:
    status, content_type, body = await admin.get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert status == 200
    assert content_type.startswith("application/openmetrics-text;")
    assert body.endswith(b"# EOF\n")


@pytest_twisted.ensureDeferred
async def test_the_other_pages_are_json(admin: Admin) -> None:
    status, content_type, body = await admin.get("/")
    assert (status, content_type) == (200, "application/json")
    assert set(json.loads(body)) == {"/health", "/metrics", "/stats", "/status"}
    assert json.loads((await admin.get("/stats"))[2]) == FIGURES | {"messages": {}}
    assert json.loads((await admin.get("/health"))[2]) == {"status": "serving"}
    admin.resource.draining = True
    assert (await admin.get("/health"))[0] == 503
    assert (await admin.get("/elsewhere"))[0] == 404


@pytest_twisted.ensureDeferred
async def test_the_cluster_is_told_once_the_node_knows_one(admin: Admin) -> None:
    status, _, body = await admin.get("/status")
    assert (status, json.loads(body)) == (503, {"error": "this node belongs to no cluster yet"})
    admin.report = {"cluster_id": 7}
    assert (await admin.get("/status"))[::2] == (200, b'{\n  "cluster_id": 7\n}\n')
