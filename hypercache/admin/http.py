"""What an operator can ask a node over HTTP: is it well, and what does it count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from klein import Klein
from twisted.web.server import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.web.iweb import IRequest

    from hypercache.admin.exposition import Exposition

_PATHS: Final = {
    "/health": "200 while the node serves, 503 while it shuts down",
    "/metrics": "the node's figures for Prometheus",
    "/stats": "the node's figures",
    "/status": "the cluster as the node knows it; 503 while it knows none",
}


class AdminResource:
    """The pages.

    Args:
        stats: returns the node's figures, as data for JSON.
        exposition: tells them to Prometheus.
        status: returns the cluster as the node knows it (`hypercache.control.report`), as data for JSON; None while it knows none.
    """

    app = Klein()

    def __init__(
        self,
        stats: Callable[[], dict[str, Any]],
        exposition: Exposition,
        status: Callable[[], dict[str, Any] | None] | None = None,
    ) -> None:
        self._stats = stats
        self._exposition = exposition
        self._status = status
        self.draining = False

    @app.route("/", methods=["GET"])
    def index(self, request: IRequest) -> bytes:
        """Answer which pages there are."""
        return _json(request, _PATHS)

    @app.route("/health", methods=["GET"])
    def health(self, request: IRequest) -> bytes:
        """Answer whether the node serves."""
        request.setResponseCode(503 if self.draining else 200)
        return _json(request, {"status": "draining" if self.draining else "serving"})

    @app.route("/stats", methods=["GET"])
    def stats(self, request: IRequest) -> bytes:
        """Answer the node's figures."""
        return _json(request, self._stats())

    @app.route("/status", methods=["GET"])
    def status(self, request: IRequest) -> bytes:
        """Answer the cluster as the node knows it."""
        report = self._status() if self._status is not None else None
        if report is None:
            request.setResponseCode(503)
            report = {"error": "this node belongs to no cluster yet"}
        return _json(request, report)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: IRequest) -> bytes:
        """Answer the node's figures in the text format that Prometheus asks for."""
        body, content_type = self._exposition.render(request.getHeader("accept") or "")
        request.setHeader("content-type", content_type)
        return body


def _json(request: IRequest, data: Any) -> bytes:
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(data, indent=2).encode() + b"\n"


def admin_site(resource: AdminResource) -> Site:
    """Return the factory that serves the pages."""
    site = Site(resource.app.resource())
    site.noisy = False
    return site
