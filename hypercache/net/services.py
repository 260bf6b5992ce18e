"""What a plug-in's handlers may use of the node that they run in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from hypercache.config import Settings
    from hypercache.net.link import PeerLink
    from hypercache.net.metrics import MessageMetrics
    from hypercache.store import Keyspace
    from hypercache.tracing import Tracer
    from hypercache.wire import Message


class Services(msgspec.Struct, frozen=True):
    """The services of one node.

    Attributes:
        settings: how it is set up.
        node_id: its id.
        keyspace: its stores.
        metrics: its figures of the cluster protocol.
        clock: the reactor: ``seconds()`` and ``callLater``.
        wall: returns Unix seconds.
        links: returns the links to the members that can be reached.
        request: sends a message to the member of a node id, again where that is safe (`hypercache.net.retrying`), and returns a
            Deferred of the answer, which fails with a RequestError.
        tracer: makes the child contexts of what a handler sends on.
    """

    settings: Settings
    node_id: int
    keyspace: Keyspace
    metrics: MessageMetrics
    clock: Any
    wall: Callable[[], float]
    links: Callable[[], list[PeerLink]]
    request: Callable[[int, Message], Deferred[Any]]
    tracer: Tracer
