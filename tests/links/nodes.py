"""Nodes without clients: the cluster port as `hypercache.roles.node` wires it, on real sockets of this reactor."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from hypercache.auth.keyfile import add_key
from hypercache.cluster.copies import CopyReplicator
from hypercache.config import TLSSettings, load_settings
from hypercache.persist.identity import Identity
from hypercache.replication.apply import Applier
from hypercache.replication.feed import Feed
from hypercache.roles.peering import Peering
from hypercache.store import Keyspace
from hypercache.tracing import Tracer
from tests.auth.handshakes import key
from tests.links.messages import probe_plugins
from tests.net.sockets import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from hypercache.auth.credentials import NodeCredential
    from hypercache.cluster.members import Member
    from hypercache.cluster.membership import Membership
    from hypercache.net.lean import LeanReactor
    from hypercache.net.link import PeerLink

CLUSTER = 77
NOWHERE = "127.0.0.1:1"
"""An advertised address at which nobody is: a node that has it is dialled by nobody."""

DAY_SECONDS = 24 * 3600.0


class Handled(msgspec.Struct, frozen=True):
    """What reached a handler."""

    link: Any
    message: Any


class LinkedNode:
    """A node that links with others.

    Args:
        directory: its data directory.
        node_id: its id.
        lean: listens.
        overrides: settings, ``section.key=value`` each.
        tls: of the cluster port.
        wall: its clock.
        layers: frame layers of plug-ins.
        seed: of its nonces.

    Attributes:
        handled: what reached its handlers, in order.
        probes: the handler of Probe.
    """

    def __init__(
        self,
        directory: Path,
        node_id: int,
        *,
        lean: LeanReactor,
        overrides: Iterable[str] = (),
        tls: TLSSettings | None = None,
        wall: Callable[[], float] = time.time,
        layers: Iterable[Any] = (),
    ) -> None:
        self.node_id = node_id
        self._lean = lean
        settings = load_settings(overrides=[f"node.id={node_id}", *overrides])
        if tls is not None:
            settings = msgspec.structs.replace(settings, cluster_tls=tls)
        self.settings = settings
        rng = random.Random(time.perf_counter_ns() ^ node_id)
        self.identity = Identity(directory, rng, node_id=node_id, expected_cluster=settings.cluster.id)
        self.keyspace = Keyspace(origin=node_id, rng=rng)
        self.keyspace.advance(int(wall() * 1000))
        self.replicator = CopyReplicator(
            self.keyspace,
            clock=reactor,
            wall=wall,
            make_feed=lambda extended: Feed(
                extended=extended, max_frame=settings.cluster.max_frame, outbox_max=1000, window_count=500
            ),
        )
        plugins, self.probes = probe_plugins(*layers)
        self.peering = Peering(
            settings,
            self.identity,
            f"n{node_id}",
            plugins,
            keyspace=self.keyspace,
            replicator=self.replicator,
            applier=Applier(self.keyspace),
            reactor=reactor,
            rng=rng,
            wall=wall,
            tracer=Tracer(settings.tracing, rng=rng, wall=wall, node_id=node_id),
        )
        self.peers = self.peering.peers
        self.metrics = self.peering.metrics
        self.handled: list[Handled] = []
        self._port: Any = None

    async def start(self, port: int = 0) -> LinkedNode:
        """Listen, and join whom it is to join."""
        self._port = await serverFromString(self._lean, f"tcp:{port}:interface=127.0.0.1").listen(self.peering.port_factory)
        self.peering.join(self._port.getHost(), "")
        for message_type in range(256):
            handler = self.peers.router.handler_for(message_type)
            if handler is not None:
                handler.handle = self._noting(handler.handle)
        return self

    def _noting(self, handle: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        note = self.handled.append

        def noted(context: Any, message: Any) -> Any:
            note(Handled(context.link, message))
            return handle(context, message)

        return noted

    @property
    def port(self) -> int:
        """Where it listens."""
        number: int = self._port.getHost().port
        return number

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def membership(self) -> Membership:
        assert self.peering.membership is not None
        return self.peering.membership

    def member(self, other: LinkedNode) -> Member | None:
        return self.membership.member(other.node_id)

    def link_to(self, other: LinkedNode) -> PeerLink:
        """Return the link over which another node is a member."""
        member = self.member(other)
        assert member is not None and member.link is not None
        return member.link

    def has_linked(self, *others: LinkedNode) -> bool:
        linked = {link.node_id for link in self.membership.links() if link.usable}
        return {other.node_id for other in others} - {self.node_id} == linked

    @property
    def is_level(self) -> bool:
        """Whether its members have all that was written here."""
        return all(feed.is_level for feed in self.replicator.feeds.values())

    def of(self, cls: type[Any]) -> list[Any]:
        """Return the messages of a class that were handled."""
        return [each.message for each in self.handled if isinstance(each.message, cls)]

    async def stop(self) -> None:
        """End in good order, and at once where that takes longer than a moment."""
        if self._port is None:
            self.identity.close()
            return
        port, self._port = self._port, None
        await port.stopListening()
        self.peering.leave()
        for link in list(self.peers.links):
            if not link.member:
                link.cut("the test is over")
        deadline = time.monotonic() + 0.5
        await until(lambda: not self.peers.links or time.monotonic() > deadline)
        for link in list(self.peers.links):
            link.cut("the test is over")
        await until(lambda: not self.peers.links)
        self.identity.close()


class Nodes:
    """The nodes of a test: made, and ended with it."""

    def __init__(self, directory: Path, lean: LeanReactor) -> None:
        self.directory = directory
        self.lean = lean
        self.made: list[LinkedNode] = []

    def make(self, node_id: int, *overrides: str, name: str = "", **options: Any) -> LinkedNode:
        """Return a node that is not started."""
        quick = ("cluster.reconnect_first=0.02", "cluster.reconnect_max=0.2", "security.failure_delay=0.02")
        directory = self.directory / (name or f"node{node_id}")
        node = LinkedNode(directory, node_id, lean=self.lean, overrides=(*quick, *overrides), **options)
        self.made.append(node)
        return node

    async def start(self, node_id: int, *overrides: str, name: str = "", port: int = 0, **options: Any) -> LinkedNode:
        return await self.make(node_id, *overrides, name=name, **options).start(port)

    async def stop(self, node: LinkedNode) -> None:
        self.made.remove(node)
        await node.stop()

    async def close(self) -> None:
        for node in self.made:
            await node.stop()


def joining(*others: LinkedNode | int) -> str:
    """Return the setting that has a node join others, or ports."""
    ports = [other if isinstance(other, int) else other.port for other in others]
    return f"cluster.join={','.join(f'127.0.0.1:{port}' for port in ports)}"


async def linked(*nodes: LinkedNode, seconds: float = 10.0) -> None:
    """Wait until each node is linked with all others."""
    await until(lambda: all(node.has_linked(*nodes) for node in nodes), seconds)


def credential(
    key_id: str = "main", *, node_id: int = 0, start: float = -DAY_SECONDS, end: float = DAY_SECONDS, seed: int = 1
) -> Any:
    """Return a key, valid from and to so many seconds from now."""
    now = time.time()
    return key(key_id, node_id, now + start, now + end, seed)


def key_file(path: Path, *credentials: NodeCredential) -> str:
    """Write keys to a file, one more where it is there; return the setting that names it."""
    for each in credentials or (credential(),):
        add_key(path, each)
    return f"security.key_file={path}"


def hmac(path: Path, *credentials: NodeCredential) -> tuple[str, str]:
    """Return the settings of a node that authenticates with keys."""
    return "security.auth=hmac", key_file(path, *credentials)
