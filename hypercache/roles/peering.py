"""The cluster port of a node: what its links are made of, who it links with, and what it does with their messages."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, ensureDeferred

from hypercache.auth.providers import provider_named
from hypercache.cluster.dialer import Dialer
from hypercache.cluster.heartbeats import Heartbeats
from hypercache.cluster.members import CAPABILITIES, NodeFacts
from hypercache.cluster.membership import Membership
from hypercache.discovery import plugin_handlers
from hypercache.handlers.heartbeat import HeartbeatHandler
from hypercache.handlers.membership import JoinHandler, RingQueryHandler, RingUpdateHandler
from hypercache.handlers.replicate import ReplicateHandler
from hypercache.handlers.schema import SchemaHandler
from hypercache.layers.built_in import built_in_layers
from hypercache.net.addresses import format_address, parse_address
from hypercache.net.metrics import MessageMetrics
from hypercache.net.outgoing import BatchLimits
from hypercache.net.peer import LinkSettings, PeerFactory, ReceiveBudget
from hypercache.net.retrying import Retrying
from hypercache.net.router import Router
from hypercache.net.services import Services
from hypercache.net.tls import port_tls
from hypercache.wire import Capability

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from hypercache.cluster.control_plane import ControlPlane
    from hypercache.cluster.copies import CopyReplicator
    from hypercache.config import ClusterSettings, Settings
    from hypercache.discovery import Plugins
    from hypercache.net.link import PeerLink
    from hypercache.persist.identity import Identity
    from hypercache.replication.apply import Applier
    from hypercache.store import Keyspace
    from hypercache.tracing import Tracer
    from hypercache.wire import Message


def link_settings(settings: ClusterSettings) -> LinkSettings:
    """Return what bounds a link, of the settings of the cluster port."""
    return LinkSettings(
        max_frame=settings.max_frame,
        resync_bytes_max=settings.resync_bytes_max,
        errors_max=settings.errors_max,
        frame_timeout=settings.frame_timeout,
        hello_timeout=settings.hello_timeout,
        auth_timeout=settings.auth_timeout,
        idle_timeout=settings.idle_timeout,
        request_timeout=settings.request_timeout,
        handshakes_max=settings.handshakes_max,
        streams_max=settings.streams_max,
        batch=BatchLimits(settings.batch_frames, settings.batch_bytes, settings.batch_delay),
    )


class Peering:
    """A node among others.

    Args:
        settings: how the node is set up.
        identity: who it is.
        name: its name.
        plugins: what it is extended by.
        keyspace: its stores.
        replicator: keeps the members level.
        applier: applies what members write.
        reactor: runs it.
        rng: for nonces, cluster ids and jitter.
        wall: returns Unix seconds.
        tracer: records traced requests.
        control: the node's part in what all members agree on; None for a node among base peers, which agree on nothing.

    Attributes:
        metrics: the figures of the cluster protocol.
        peers: what all links share; the cluster port's factory, but for TLS.
        port_factory: what listens on the cluster port.
        membership: who is a member; None until `join`.

    Raises:
        ConfigurationError: keys, certificates or costs cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        name: str,
        plugins: Plugins,
        *,
        keyspace: Keyspace,
        replicator: CopyReplicator,
        applier: Applier,
        reactor: Any,
        rng: random.Random,
        wall: Callable[[], float],
        tracer: Tracer,
        control: ControlPlane | None = None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._name = name
        self._plugins = plugins
        self._keyspace = keyspace
        self._replicator = replicator
        self._applier = applier
        self._reactor = reactor
        self._rng = rng
        self._wall = wall
        self._control = control
        self.metrics = MessageMetrics(plugins.schema)
        self._router = Router(plugins.schema)
        self._provider = provider_named(settings, identity.node_id, wall, plugins.auth_providers.values())
        self._tls = port_tls(settings.cluster_tls, "cluster_tls", clock=reactor, dials=True)
        built_in = built_in_layers(settings, schema=plugins.schema, count_limited=self._count_limited)
        self.peers = PeerFactory(
            self._router,
            self.metrics,
            link_settings(settings.cluster),
            clock=reactor,
            wall=wall,
            budget=ReceiveBudget(settings.cluster.receive_budget),
            layers=[*built_in, *plugins.layers],
        )
        # Until there are terms nobody could be told from a member.
        self.peers.accepting = False
        self.peers.after_read = replicator.poke
        self.peers.tracer = self._tracer = tracer
        self.port_factory = self.peers if self._tls is None else self._tls.server(self.peers)
        self.membership: Membership | None = None
        self._heartbeats: Heartbeats | None = None

    def join(self, host: Any, client_address: str) -> None:
        """Become a member, or found a cluster.

        Args:
            host: the address that the cluster port listens on; None where it is off.
            client_address: where clients reach the node.

        Raises:
            ConfigurationError: an address is none.
            PluginError: a plug-in makes no handlers, and must.
        """
        settings = self._settings
        cluster = settings.cluster
        dialer = Dialer(
            self.peers,
            self._reactor,
            self._rng,
            first_seconds=cluster.reconnect_first,
            max_seconds=cluster.reconnect_max,
            connect_timeout=cluster.connect_timeout,
            secure=None if self._tls is None else self._tls.client,
        )
        facts = NodeFacts(
            name=self._name,
            client_address=client_address,
            cluster_address=self._advertised(host),
            max_frame=cluster.max_frame,
            schema_hash=self._plugins.schema.hash(),
            capabilities=self._capabilities(),
        )
        membership = Membership(
            self._identity,
            facts,
            cluster.join,
            dialer=dialer,
            clock=self._reactor,
            rng=self._rng,
            wall=self._wall,
            provider=self._provider,
            failure_delay=settings.security.failure_delay,
            max_nodes=cluster.max_nodes,
        )
        membership.expects_members = self._replicator.activate
        membership.link_up = self._link_up
        membership.link_down = self._link_down
        membership.link_moved = self._replicator.link_moved
        self.peers.terms = self.membership = membership
        for handler in (
            JoinHandler(membership),
            RingQueryHandler(membership),
            RingUpdateHandler(membership),
            HeartbeatHandler(),
            ReplicateHandler(self._applier),
            SchemaHandler(self._plugins.schema),
            *(self._control.handlers() if self._control is not None else ()),
            *plugin_handlers(self._plugins, self._services(membership)),
        ):
            self._router.add(handler)
        self._heartbeats = Heartbeats(
            membership, clock=self._reactor, wall=self._wall, interval=cluster.heartbeat, silence=cluster.silence
        )
        if self._tls is not None:
            self._tls.start()
        if self._control is not None:
            self._control.attach(membership)
            self.peers.before_answers = self._control.turn
        self.peers.accepting = True
        membership.start()
        self._heartbeats.start()

    def leave(self) -> Deferred[Any]:
        """Say goodbye to everybody; fires when the last link is gone."""
        if self._heartbeats is not None:
            self._heartbeats.stop()
        if self._tls is not None:
            self._tls.stop()
        if self.membership is None:
            done: Deferred[Any] = Deferred()
            done.callback(None)
            return done
        return self.membership.stop()

    def _link_up(self, link: PeerLink) -> None:
        self._replicator.link_up(link)
        if self._control is not None:
            self._control.link_up(link)

    def _link_down(self, link: PeerLink) -> None:
        self._replicator.link_down(link)
        if self._control is not None:
            self._control.link_down(link)

    def _services(self, membership: Membership) -> Services:
        links: Callable[[], list[PeerLink]] = membership.links
        cluster = self._settings.cluster
        retrying = Retrying(self._reactor, self._rng, attempts=cluster.request_attempts, timeout=cluster.request_timeout)

        def request(node_id: int, message: Message) -> Deferred[Any]:
            return ensureDeferred(retrying.request(message, lambda: membership.link_to(node_id)))

        return Services(
            settings=self._settings,
            node_id=self._identity.node_id,
            keyspace=self._keyspace,
            metrics=self.metrics,
            clock=self._reactor,
            wall=self._wall,
            links=links,
            request=request,
            tracer=self._tracer,
        )

    def _capabilities(self) -> int:
        capabilities = CAPABILITIES
        if not self._settings.security.signing:
            capabilities &= ~Capability.SIGNING
        if self._settings.compression.codec != "off":
            capabilities |= Capability.COMPRESSION
        if self._tls is not None:
            capabilities |= Capability.TLS
        return int(capabilities) | self._plugins.capabilities

    def _advertised(self, host: Any) -> str:
        """Return where other nodes reach this one; empty where they cannot."""
        if self._settings.node.advertise:
            return format_address(*parse_address(self._settings.node.advertise))
        if not hasattr(host, "port"):
            return ""
        if host.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            return format_address(platform.node(), host.port)
        return format_address(host.host, host.port)

    def _count_limited(self, count: int) -> None:
        self.metrics.rate_limited += count
