"""The node: what it consists of, wired; read from top to bottom."""

from __future__ import annotations

import os
import random
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from hypercache import __version__
from hypercache.admin.exposition import Exposition
from hypercache.admin.http import AdminResource, admin_site
from hypercache.cluster.copies import CopyReplicator
from hypercache.discovery import load_plugins, log_plugins
from hypercache.errors import ConfigurationError, PluginError, StorageError
from hypercache.limits import DRAIN_SECONDS, EXPIRY_TICK_SECONDS
from hypercache.net.addresses import format_address
from hypercache.net.clients import ClientFactory, ClientLimits
from hypercache.net.endpoints import endpoint_string
from hypercache.net.lean import lean_reactor
from hypercache.net.plain_port import PlainPort
from hypercache.net.tls import port_tls
from hypercache.persist.identity import Identity
from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.resp import ServerContext, built_in_commands
from hypercache.roles.agreement import Agreement
from hypercache.roles.exposure import check_exposure
from hypercache.roles.figures import NodeFigures, cpu_figures
from hypercache.roles.parameters import node_parameters
from hypercache.roles.peering import Peering
from hypercache.roles.process import raise_file_limit, tune_garbage_collection
from hypercache.store import Keyspace, built_in_policies, policy_named
from hypercache.tracing import Tracer, make_exporter

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from hypercache.config import RespSettings, Settings
    from hypercache.resp import CommandTable
    from hypercache.store import EvictionPolicy

_log = Logger()


def client_limits(settings: RespSettings) -> ClientLimits:
    """Return what bounds a client, of the settings of the port for clients."""
    return ClientLimits(
        max_clients=settings.max_clients,
        idle_timeout=settings.idle_timeout,
        value_max=settings.value_max,
        query_buffer=settings.query_buffer,
        output_pause=settings.output_pause,
        output_max=settings.output_max,
        output_stall=settings.output_stall,
    )


class NodeService(Service):
    """A node.

    Args:
        settings: how it is set up.
        reactor: runs it.

    Raises:
        ConfigurationError: the settings contradict each other, or the data directory cannot be used.
    """

    name = "hypercache-node"

    def __init__(self, settings: Settings, reactor: Any) -> None:
        check_exposure(settings)
        self.settings = settings
        self._reactor = reactor = lean_reactor(reactor)
        self._endpoints = {
            section: endpoint_string(getattr(settings, section).listen, f"{section}.listen")
            for section in ("resp", "cluster", "admin")
        }
        self._plugins = plugins = load_plugins(settings.plugins)
        self._rng = random.Random(secrets.randbits(128))
        self.identity = Identity(
            Path(settings.node.data_dir), self._rng, node_id=settings.node.id, expected_cluster=settings.cluster.id
        )
        self._name = settings.node.name or f"node-{self.identity.node_id:016x}"[:13]
        self._ports: dict[str, Any] = {}

        # What the ports for clients and operators are wrapped in; the port for peers has its own.
        self._tls = {
            section: port_tls(getattr(settings, f"{section}_tls"), f"{section}_tls", clock=reactor) for section in ("resp", "admin")
        }

        # What it keeps, and how others come to have it.
        policies = {**built_in_policies(), **plugins.policies}
        self.keyspace = self._make_keyspace(policies)
        self.keyspace.advance(int(time.time() * 1000))
        exporter = make_exporter(settings.tracing, reactor=reactor, node_id=self.identity.node_id, name=self._name)
        self._tracer = Tracer(settings.tracing, rng=self._rng, wall=time.time, node_id=self.identity.node_id, exporter=exporter)
        self.replicator = CopyReplicator(
            self.keyspace, clock=reactor, wall=time.time, make_feed=self._make_feed, tracer=self._tracer
        )

        # What it agrees on with others.
        self.agreement = Agreement(
            settings,
            self.identity,
            self.keyspace,
            policies,
            reactor=reactor,
            rng=self._rng,
            report_failure=_report_failure,
            failed=self._cannot_go_on,
        )
        self.agreement.control.left = self._leave

        # The door for clients.
        limits = client_limits(settings.resp)
        table = built_in_commands().extended(plugins.commands)
        self.clients = ClientFactory(table, limits, clock=reactor)
        self.clients.after_feed = self.replicator.poke

        # The port for peers.
        self.peering = Peering(
            settings,
            self.identity,
            self._name,
            plugins,
            keyspace=self.keyspace,
            replicator=self.replicator,
            applier=Applier(self.keyspace, int(settings.replication.clock_skew_max * 1000)),
            reactor=reactor,
            rng=self._rng,
            wall=time.time,
            tracer=self._tracer,
            control=self.agreement.control,
        )

        # What it tells of itself, and what commands know of it.
        self.figures = NodeFigures(
            self._name, self.identity, self.keyspace, self.clients, self.replicator, self.peering, self.agreement.control
        )
        self.clients.server = self._server_context(table, limits, policies)

        # The port for operators.
        self.admin = AdminResource(
            self.figures.stats, Exposition(self.peering.metrics, self.figures.all), self.agreement.control.status
        )

        self._tending = LoopingCall(self._tend)
        self._tending.clock = reactor

    def _server_context(self, table: CommandTable, limits: ClientLimits, policies: Mapping[str, EvictionPolicy]) -> ServerContext:
        """Return what commands know of the node."""
        server = ServerContext(
            version=__version__,
            run_id=secrets.token_hex(20),
            started_ms=self.keyspace.now_ms,
            password=self.settings.resp.password.encode(),
            clients=self.clients,
            keyspace=self.keyspace,
            rng=self._rng,
            report_failure=_report_failure,
            tracer=self._tracer,
            sections={
                "replication": self.figures.replication,
                "raft": self.figures.raft,
                "cpu": cpu_figures,
                "cluster": lambda: {"cluster_enabled": 0},
            },
        )
        server.stores = self.agreement.stores
        server.members = self.agreement.members
        server.table = table
        server.value_max_bytes = self.settings.resp.value_max
        server.parameters = node_parameters(self.settings, self.keyspace, server, limits, policies, self._port_of)
        return server

    # Start

    def startService(self) -> None:
        """Open the ports, then join; a failure stops the process with a clear line."""
        super().startService()
        raise_file_limit(self.settings.resp.max_clients)
        starting: Deferred[None] = ensureDeferred(self._start())
        starting.addErrback(self._cannot_start)

    async def _start(self) -> None:
        log_plugins(self._plugins)
        # The cluster port first: what it is reached at is what the node tells others about itself.
        await self._listen("cluster", self.peering.port_factory)
        await self._listen("resp", self.clients)
        await self._listen("admin", admin_site(self.admin))
        cluster_port = self._ports.get("cluster")
        self.peering.join(cluster_port.getHost() if cluster_port is not None else None, self._address_of("resp"))
        self.agreement.start()
        self._tending.start(EXPIRY_TICK_SECONDS, now=False)
        tune_garbage_collection()
        shown = ", ".join(f"{section} {self._address_of(section)}" for section in ("resp", "cluster", "admin"))
        port = self._port_of("resp")
        secured = " --tls" if self._tls["resp"] is not None else ""
        hint = f"; try: redis-cli -p {port}{secured} ping" if port else ""
        _log.info("HyperCache node {name} ready: {shown}{hint}", name=self._name, shown=shown, hint=hint)

    async def _listen(self, section: str, factory: Any) -> None:
        endpoint = self._endpoints[section]
        if endpoint is None:
            return
        tls = self._tls.get(section)
        if tls is not None:
            tls.start()
            factory = tls.server(factory)
        elif section in self._tls:
            factory = PlainPort(factory, section, self._reactor)
        try:
            self._ports[section] = await serverFromString(self._reactor, endpoint).listen(factory)
        except Exception as error:
            raise ConfigurationError(f"{section}.listen: cannot listen on {endpoint}: {error}") from error

    def _cannot_start(self, failure: Any) -> None:
        if failure.check(ConfigurationError, PluginError, StorageError):
            _log.critical("cannot start: {reason}", reason=failure.getErrorMessage())
        else:
            _log.failure("cannot start", failure)
        # Twisted's own stop leaves the exit code at 0.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        if self._reactor.running:
            self._reactor.stop()
        else:
            self._reactor.callWhenRunning(self._reactor.stop)

    def _cannot_go_on(self, error: BaseException) -> None:
        """End at once: what this node would do from here on could break a promise, and a restart recovers what was promised."""
        _log.critical("this node ends: {reason}", reason=error)
        if not isinstance(error, StorageError):
            _log.failure("what ended it", Failure(error))
        os._exit(1)

    def _leave(self) -> None:
        """Stop: the cluster has let this node go."""
        self._reactor.callLater(0, self._reactor.stop)

    # Stop

    @inlineCallbacks
    def stopService(self) -> Generator[Any, Any, None]:
        """Take no more clients, let replies out, bring the members level, say goodbye."""
        self.admin.draining = True
        for section in ("resp", "admin"):
            if section in self._ports:
                yield self._ports.pop(section).stopListening()
        drained: Deferred[None] = Deferred()
        self.clients.drain(lambda: drained.callback(None))
        waits = [drained, self.replicator.flush()]
        for each in waits:
            each.addTimeout(DRAIN_SECONDS, self._reactor).addErrback(_too_slow)
        yield DeferredList(waits)
        for client in self.clients:
            client.kill()
        yield self.agreement.control.resign()
        self.agreement.stop()
        yield self.peering.leave()
        if "cluster" in self._ports:
            yield self._ports.pop("cluster").stopListening()
        yield self._tracer.stop()
        for tls in self._tls.values():
            if tls is not None:
                tls.stop()
        if self._tending.running:
            self._tending.stop()
        self.identity.close()
        _log.info("HyperCache node {name} stopped", name=self._name)
        yield super().stopService()

    # Running

    def _tend(self) -> None:
        """Do background work in the stores, for a bounded time."""
        end = time.perf_counter() + self.settings.memory.expiry_budget
        self.keyspace.advance(int(time.time() * 1000))
        self.keyspace.tend(lambda: time.perf_counter() > end)

    def _make_keyspace(self, policies: Mapping[str, EvictionPolicy]) -> Keyspace:
        memory, replication = self.settings.memory, self.settings.replication
        return Keyspace(
            origin=self.identity.node_id,
            rng=self._rng,
            maxmemory=memory.maxmemory,
            policy=policy_named(memory.policy, policies),
            samples=memory.samples,
            databases=self.settings.resp.databases,
            tombstones_max=replication.tombstones_max,
            tombstone_ttl_ms=int(replication.tombstone_ttl * 1000),
        )

    def _make_feed(self, extended: bool) -> Feed:
        replication = self.settings.replication
        return Feed(
            extended=extended,
            max_frame=self.settings.cluster.max_frame,
            window_count=replication.window,
            window_bytes=replication.window_bytes,
            outbox_max=replication.outbox,
        )

    # What others may know

    def _port_of(self, section: str) -> int:
        port = self._ports.get(section)
        return getattr(port.getHost(), "port", 0) if port is not None else 0

    def _address_of(self, section: str) -> str:
        port = self._ports.get(section)
        if port is None:
            return "off"
        host = port.getHost()
        return format_address(host.host, host.port) if hasattr(host, "port") else str(host)


def _report_failure(command: str, failure: Exception) -> None:
    _log.failure("the command {command} failed", command=command)


def _too_slow(failure: Any) -> None:
    _log.warn("gave up waiting at shutdown: {reason}", reason=failure.getErrorMessage())
