"""The node: what it consists of, wired; read from top to bottom."""

from __future__ import annotations

import gc
import os
import platform
import random
import resource
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hypercache import __version__
from hypercache.admin.http import AdminResource, admin_site
from hypercache.cluster.copies import CopyReplicator
from hypercache.cluster.dialer import Dialer
from hypercache.cluster.heartbeats import Heartbeats
from hypercache.cluster.membership import Membership, NodeFacts
from hypercache.errors import ConfigurationError
from hypercache.handlers.heartbeat import HeartbeatHandler
from hypercache.handlers.membership import GoodbyeHandler, HelloHandler, JoinHandler, RingQueryHandler, RingUpdateHandler
from hypercache.handlers.replicate import ReplicateHandler
from hypercache.limits import DRAIN_SECONDS, EXPIRY_TICK_SECONDS
from hypercache.net.addresses import format_address, parse_address
from hypercache.net.clients import ClientFactory, ClientLimits
from hypercache.net.endpoints import endpoint_string, is_loopback
from hypercache.net.lean import lean_reactor
from hypercache.net.metrics import MessageMetrics
from hypercache.net.peer import LinkSettings, PeerFactory, ReceiveBudget
from hypercache.net.router import Router
from hypercache.persist.identity import Identity
from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.resp import ServerContext, built_in_commands
from hypercache.roles.parameters import node_parameters
from hypercache.store import Keyspace, built_in_policies, policy_named
from hypercache.wire.messages import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from hypercache.config import Settings

_log = Logger()
_DESCRIPTORS_BESIDE_CLIENTS: Final = 128


def check_exposure(settings: Settings) -> None:
    """Refuse to be reached from other machines without protection.

    Raises:
        ConfigurationError: the settings would do that; the text says how to go on.
    """
    if settings.security.insecure:
        return
    protections = {"resp": bool(settings.resp.password), "cluster": False, "admin": False}
    for section, is_protected in protections.items():
        listen = getattr(settings, section).listen
        endpoint = endpoint_string(listen, f"{section}.listen")
        if endpoint is None or is_loopback(endpoint) or is_protected:
            continue
        way = "set resp.password, or " if section == "resp" else ""
        raise ConfigurationError(
            f"{section}.listen = {listen!r} can be reached from other machines without any protection; {way}listen on a loopback "
            "address, or, where the network itself is trusted, set security.insecure = true"
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
        self._reactor = reactor
        self._endpoints = {
            section: endpoint_string(getattr(settings, section).listen, f"{section}.listen")
            for section in ("resp", "cluster", "admin")
        }
        self._rng = random.Random(secrets.randbits(128))
        self.identity = Identity(Path(settings.node.data_dir), self._rng)
        self._name = settings.node.name or f"node-{self.identity.node_id:016x}"[:13]
        self._ports: dict[str, Any] = {}

        memory, replication = settings.memory, settings.replication
        policies = built_in_policies()
        self.keyspace = Keyspace(
            origin=self.identity.node_id,
            rng=self._rng,
            maxmemory=memory.maxmemory,
            policy=policy_named(memory.policy, policies),
            samples=memory.samples,
            databases=settings.resp.databases,
            tombstones_max=replication.tombstones_max,
            tombstone_ttl_ms=int(replication.tombstone_ttl * 1000),
        )
        self.keyspace.advance(int(time.time() * 1000))
        self.replicator = CopyReplicator(self.keyspace, clock=reactor, wall=time.time, make_feed=self._make_feed)

        # The door for clients.
        client_limits = ClientLimits(
            max_clients=settings.resp.max_clients,
            idle_timeout=settings.resp.idle_timeout,
            value_max=settings.resp.value_max,
            query_buffer=settings.resp.query_buffer,
            output_pause=settings.resp.output_pause,
            output_max=settings.resp.output_max,
            output_stall=settings.resp.output_stall,
        )
        table = built_in_commands()
        self.clients = ClientFactory(table, client_limits, clock=reactor)
        self.clients.after_feed = self.replicator.poke
        server = ServerContext(
            version=__version__,
            run_id=secrets.token_hex(20),
            started_ms=self.keyspace.now_ms,
            password=settings.resp.password.encode(),
            clients=self.clients,
            keyspace=self.keyspace,
            rng=self._rng,
            report_failure=_report_failure,
            sections={"replication": self._replication_section, "cpu": _cpu_section, "cluster": _cluster_section},
        )
        server.table = table
        server.value_max_bytes = settings.resp.value_max
        server.parameters = node_parameters(settings, self.keyspace, server, client_limits, policies, self._port_of)
        self.clients.server = server

        # The port for peers.
        self.metrics = MessageMetrics(SCHEMA)
        self.router = Router(SCHEMA)
        link_settings = LinkSettings(
            max_frame=settings.cluster.max_frame,
            resync_bytes_max=settings.cluster.resync_bytes_max,
            errors_max=settings.cluster.errors_max,
            frame_timeout=settings.cluster.frame_timeout,
        )
        self.peers = PeerFactory(
            self.router, self.metrics, link_settings, clock=reactor, budget=ReceiveBudget(settings.cluster.receive_budget)
        )
        self.peers.after_read = self.replicator.poke
        self.applier = Applier(self.keyspace, int(replication.clock_skew_max * 1000))

        self.admin = AdminResource(self.stats)
        self._tending = LoopingCall(self._tend)
        self._tending.clock = reactor
        self.membership: Membership | None = None
        self._heartbeats: Heartbeats | None = None

    # Start

    def startService(self) -> None:
        """Open the ports, then join; a failure stops the process with a clear line."""
        super().startService()
        _raise_file_limit(self.settings.resp.max_clients)
        starting: Deferred[None] = ensureDeferred(self._start())
        starting.addErrback(self._cannot_start)

    async def _start(self) -> None:
        lean = lean_reactor(self._reactor)
        # The cluster port first: what it is reached at is what the node tells others about itself.
        await self._listen("cluster", lean, self.peers)
        await self._listen("resp", lean, self.clients)
        await self._listen("admin", self._reactor, admin_site(self.admin))
        self._join_cluster()
        self._tending.start(EXPIRY_TICK_SECONDS, now=False)
        _tune_garbage_collection()
        shown = ", ".join(f"{section} {self._address_of(section)}" for section in ("resp", "cluster", "admin"))
        port = self._port_of("resp")
        hint = f"; try: redis-cli -p {port} ping" if port else ""
        _log.info("HyperCache node {name} ready: {shown}{hint}", name=self._name, shown=shown, hint=hint)

    async def _listen(self, section: str, reactor: Any, factory: Any) -> None:
        endpoint = self._endpoints[section]
        if endpoint is not None:
            try:
                self._ports[section] = await serverFromString(reactor, endpoint).listen(factory)
            except Exception as error:
                raise ConfigurationError(f"{section}.listen: cannot listen on {endpoint}: {error}") from error

    def _join_cluster(self) -> None:
        settings = self.settings.cluster
        dialer = Dialer(
            self.peers,
            self._reactor,
            self._rng,
            first_seconds=settings.reconnect_first,
            max_seconds=settings.reconnect_max,
            hello_timeout=settings.hello_timeout,
        )
        facts = NodeFacts(
            name=self._name,
            client_address=self._address_of("resp"),
            cluster_address=self._advertised(),
            max_frame=settings.max_frame,
            schema_hash=SCHEMA.hash(),
        )
        membership = Membership(
            self.identity,
            facts,
            settings.join,
            dialer=dialer,
            clock=self._reactor,
            rng=self._rng,
            wall=time.time,
            max_nodes=settings.max_nodes,
        )
        membership.expects_members = self.replicator.activate
        membership.link_up = self.replicator.link_up
        membership.link_down = self.replicator.link_down
        for handler in (
            HelloHandler(membership),
            GoodbyeHandler(membership),
            JoinHandler(membership),
            RingQueryHandler(membership),
            RingUpdateHandler(membership),
            HeartbeatHandler(),
            ReplicateHandler(self.applier),
        ):
            self.router.add(handler)
        self._heartbeats = Heartbeats(
            membership, clock=self._reactor, wall=time.time, interval=settings.heartbeat, silence=settings.silence
        )
        self.membership = membership
        membership.start()
        self._heartbeats.start()

    def _cannot_start(self, failure: Any) -> None:
        if failure.check(ConfigurationError):
            _log.critical("cannot start: {reason}", reason=failure.getErrorMessage())
        else:
            _log.failure("cannot start", failure)
        # Twisted's own stop leaves the exit code at 0.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        if self._reactor.running:
            self._reactor.stop()
        else:
            self._reactor.callWhenRunning(self._reactor.stop)

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
        if self._heartbeats is not None:
            self._heartbeats.stop()
        if self.membership is not None:
            self.membership.stop()
        if "cluster" in self._ports:
            yield self._ports.pop("cluster").stopListening()
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

    def _advertised(self) -> str:
        """Return where other nodes reach this one."""
        if self.settings.node.advertise:
            return format_address(*parse_address(self.settings.node.advertise))
        port = self._ports.get("cluster")
        if port is None or not hasattr(port.getHost(), "port"):
            return ""
        host = port.getHost()
        if host.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            return format_address(platform.node(), host.port)
        return format_address(host.host, host.port)

    def _replication_section(self) -> Mapping[str, str | int | float]:
        members = self.membership.members if self.membership is not None else []
        feeds = list(self.replicator.feeds.values())
        return {
            "role": "master",
            "connected_slaves": 0,
            "hypercache_node_id": self.identity.node_id,
            "hypercache_cluster_id": self.identity.cluster_id,
            "hypercache_members": len(members) + 1,
            "hypercache_linked_members": sum(member.link is not None for member in members),
            "hypercache_level_members": sum(feed.is_level for feed in feeds),
            "hypercache_outbox_keys": sum(len(feed.outbox) for feed in feeds),
            "hypercache_full_copies": sum(feed.copies for feed in feeds),
            "hypercache_oversized_records": sum(feed.oversized for feed in feeds),
            "hypercache_refused_messages": sum(feed.refused for feed in feeds),
        }

    def stats(self) -> dict[str, Any]:
        """Return the node's figures, as data for JSON."""
        return {
            "node": {"name": self._name, "id": self.identity.node_id, "boot": self.identity.boot, "version": __version__},
            "clients": {
                "connected": len(self.clients),
                "accepted": self.clients.accepted,
                "rejected": self.clients.rejected,
                "cut": self.clients.cut,
            },
            "stores": {
                store.name: {
                    "keys": len(store),
                    "bytes": store.used_bytes(),
                    "hits": store.hits,
                    "misses": store.misses,
                    "expired": store.expired,
                    "evicted": store.evicted,
                }
                for store in self.keyspace.all_stores()
            },
            "replication": dict(self._replication_section()),
            "messages": self.metrics.get_stats(),
        }


def _report_failure(command: str, failure: Exception) -> None:
    _log.failure("the command {command} failed", command=command)


def _cpu_section() -> Mapping[str, str | int | float]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
    }


def _cluster_section() -> Mapping[str, str | int | float]:
    return {"cluster_enabled": 0}


def _too_slow(failure: Any) -> None:
    _log.warn("gave up waiting at shutdown: {reason}", reason=failure.getErrorMessage())


def _tune_garbage_collection() -> None:
    # What exists now stays for good: it need never be looked at again. Stores hold nothing that the collector tracks, so what
    # is left to it is short-lived, and looking often only costs.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _raise_file_limit(max_clients: int) -> None:
    """Allow as many open sockets as clients may come, or say that there are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_clients + _DESCRIPTORS_BESIDE_CLIENTS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        if possible < wanted:
            _log.warn(
                "only {possible} files may be open (ulimit -n), so fewer than resp.max_clients = {max} clients fit",
                possible=possible,
                max=max_clients,
            )
