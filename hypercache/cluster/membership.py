"""Who is a member, over which link, and who must be dialled.

Every member keeps one link to every other. A node dials the addresses it was told to join and the members it has no link to. Two
links between the same nodes settle to one: the higher boot number stays, then the one that the node with the smaller id dialled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import xxhash
from twisted.logger import Logger

from hypercache.cluster.joining import Joining, request_to_join
from hypercache.errors import ConfigurationError
from hypercache.limits import INCUMBENT_SILENCE_SECONDS, MAX_NODES_COUNT, VNODES_COUNT
from hypercache.net.addresses import format_address, parse_address
from hypercache.wire import Capability, ErrorCode, NodeType, Status
from hypercache.wire.header import BASE_VERSION, HIGHEST_VERSION
from hypercache.wire.messages import (
    NONCE_BYTES,
    Goodbye,
    HashRingUpdate,
    Hello,
    HelloReply,
    NodeJoinRequest,
    NodeJoinResponse,
    RingNode,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred

    from hypercache.cluster.dialer import Dialer
    from hypercache.net.peer import PeerLink
    from hypercache.persist.identity import Identity
    from hypercache.wire import Message

_log = Logger()
_UNSPECIFIED: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what a peer may say of itself, not bound
CAPABILITIES: Final = Capability.STAMPS


class Member(msgspec.Struct):
    """One node of the cluster.

    Attributes:
        node_id: its id; the address may change, the id never does.
        address: where its cluster port is reached; empty where it cannot be dialled.
        node_type: its role.
        link: the link to it, None while there is none.
        extended: it has said Hello: it is no base peer, and is never taken for one.
    """

    node_id: int
    address: str
    node_type: int
    link: PeerLink | None = None
    extended: bool = False


class Upward(Protocol):
    """Who is told of the links of members."""

    def __call__(self, link: PeerLink, greeting: Hello | HelloReply | None = None) -> None:
        """Take a link and what the peer said about itself; None of a base peer."""
        ...


class NodeFacts(msgspec.Struct, frozen=True):
    """What a node tells others about itself."""

    name: str
    client_address: str
    cluster_address: str
    max_frame: int
    schema_hash: int


def node_hash(node_id: int) -> int:
    """Return a node's place in the ring: xxh64 of its id as u64, seed 0 (wire.md, section 4)."""
    return xxhash.xxh64_intdigest(node_id.to_bytes(8, "big"))


class Membership:
    """The members of this node's cluster.

    Args:
        identity: who this node is.
        facts: what it tells others.
        join: the addresses that it was told to join.
        dialer: opens links.
        clock: the reactor.
        rng: for nonces and cluster ids.
        wall: returns Unix seconds.
        max_nodes: how many members there may be, this one included.

    Attributes:
        version: grows with each change of the members.
        link_up, link_down: called with the link of a member, at first with its greeting too.
        expects_members: called at the start where members may hold what this node does not know of.
    """

    def __init__(
        self,
        identity: Identity,
        facts: NodeFacts,
        join: Iterable[str],
        *,
        dialer: Dialer,
        clock: Any,
        rng: random.Random,
        wall: Callable[[], float],
        max_nodes: int = MAX_NODES_COUNT,
    ) -> None:
        self.identity = identity
        self.facts = facts
        self.version = 1
        self.link_up: Upward = _nobody
        self.link_down: Callable[[PeerLink], None] = _nobody
        self.expects_members: Callable[[], None] = _nothing
        self._members: dict[int, Member] = {}
        self._greetings: dict[PeerLink, Hello | HelloReply] = {}
        self._stopped = False
        self._joining = Joining(self, join, dialer=dialer, clock=clock)
        self._clock = clock
        self._rng = rng
        self._wall = wall
        self._max_nodes = max_nodes
        if not identity.cluster_id and not self._joining.seeds:
            # Only a node that was told to join nobody founds a cluster (consistency.md, rule 13).
            identity.adopt_cluster(rng.randrange(1, 1 << 64))
            _log.info("founded cluster {id}", id=identity.cluster_id)

    # Towards the roles

    def start(self) -> None:
        """Begin to dial."""
        if self.identity.clustered or self._joining.seeds:
            self.expects_members()
        self._joining.start()

    def stop(self) -> None:
        """Dial nobody any more, and tell the members that this node goes."""
        self._stopped = True
        self._joining.stop()
        for member in self._members.values():
            if member.link is not None:
                if member.link.extended:
                    member.link.send(Goodbye(ErrorCode.SHUTTING_DOWN, "shutting down"))
                member.link.lose("this node shuts down")

    @property
    def members(self) -> list[Member]:
        """The other members."""
        return list(self._members.values())

    def links(self) -> list[PeerLink]:
        """Return the links to members."""
        return [member.link for member in self._members.values() if member.link is not None]

    def identified(self, address: str, node_id: int) -> None:
        """Learn which node is behind an address."""
        self._joining.identified(address, node_id)

    def knows_hello(self, address: str) -> bool:
        """Say whether the node behind an address has said Hello before, and so is no base peer."""
        node_id = self._joining.seeds.get(address, 0)
        return any(each.extended and (each.address == address or each.node_id == node_id) for each in self._members.values())

    # What this node says

    def hello(self, cls: type[Hello | HelloReply]) -> Hello | HelloReply:
        """Return a greeting of this node."""
        return cls(
            lowest_version=BASE_VERSION,
            highest_version=HIGHEST_VERSION,
            capabilities=CAPABILITIES,
            node_id=self.identity.node_id,
            boot=self.identity.boot,
            cluster_id=self.identity.cluster_id,
            node_type=NodeType.CACHE,
            clock=int(self._wall() * 1000) << 16,
            nonce=self._rng.randbytes(NONCE_BYTES),
            max_frame=self.facts.max_frame,
            schema_hash=self.facts.schema_hash,
            key_id="",
            name=self.facts.name,
            client_address=self.facts.client_address,
            cluster_address=self.facts.cluster_address,
        )

    def greet(self, link: PeerLink) -> Deferred[Message]:
        """Send Hello over a link that was dialled."""
        link.accept_extended()
        return link.request(self.hello(Hello))

    def join_request(self) -> NodeJoinRequest:
        """Return this node's wish to be a member."""
        return request_to_join(self.identity.node_id, self.facts.cluster_address, CAPABILITIES)

    def stand_in_id(self, address: str) -> int:
        """Return an id for a base peer, which cannot say its own: the same at every node that dials the address."""
        return xxhash.xxh64_intdigest(address.encode()) or 1

    def ring(self) -> HashRingUpdate:
        """Return the members as a hash ring, this node included."""
        own = self.facts.cluster_address
        addresses = {self.identity.node_id: own, **{each.node_id: each.address for each in self._members.values()}}
        nodes = [RingNode(node_id, node_hash(node_id), VNODES_COUNT, address) for node_id, address in sorted(addresses.items())]
        return HashRingUpdate(self.version, tuple(nodes))

    # What others say

    def greeted(self, link: PeerLink, hello: Hello | HelloReply) -> str | None:
        """Take a peer's greeting; return why the link must not stay, or None."""
        if hello.node_id == self.identity.node_id:
            return "this is the node itself"
        if self._stopped:
            return "this node shuts down"
        if link.extended or link.member:
            return "it has said already who it is"
        own = self.identity.cluster_id
        if hello.cluster_id and own and hello.cluster_id != own:
            return f"it belongs to cluster {hello.cluster_id}, this node to {own}"
        if not hello.lowest_version <= HIGHEST_VERSION <= hello.highest_version:
            return f"it speaks versions {hello.lowest_version} to {hello.highest_version}, not {HIGHEST_VERSION}"
        link.node_id = hello.node_id
        link.boot = hello.boot
        incumbent = self._members.get(hello.node_id)
        if incumbent is not None and incumbent.link is not None and incumbent.link is not link:
            if not self._replaces(link, incumbent.link):
                return _DUPLICATE
            self._release(incumbent)
        self._greetings[link] = hello
        link.when_lost().addCallback(lambda _: self._greetings.pop(link, None))
        return None

    def join_requested(self, link: PeerLink, request: NodeJoinRequest) -> NodeJoinResponse:
        """Take a node's wish to be a member; the members hear of it where that is granted."""
        node_id = request.node_id
        known = self._members.get(node_id)
        if node_id in (0, self.identity.node_id) or (link.node_id and node_id != link.node_id):
            return NodeJoinResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED, 0)
        if self._stopped or not self.identity.cluster_id:
            return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
        if not link.extended:
            if request.capabilities & Capability.STAMPS:
                # One of our own that took a slow answer for none: without stamps it would lose the order of writes.
                return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
            if known is not None and known.extended:
                return NodeJoinResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED, 0)
        if known is None and len(self._members) + 1 >= self._max_nodes:
            return NodeJoinResponse(Status.ERROR, ErrorCode.CLUSTER_FULL, 0)
        link.node_id = node_id
        host = _host_of(link) if request.host in _UNSPECIFIED else request.host
        address = _dialable(format_address(host, request.port)) if request.port else ""
        # After the answer, so that the joiner knows it is a member before it hears more.
        self._clock.callLater(0, self.admit, link, address, request.node_type)
        return NodeJoinResponse(Status.SUCCESS, 0, self.identity.cluster_id)

    def ring_updated(self, link: PeerLink, update: HashRingUpdate) -> None:
        """Learn members from a member; of a node that is linked, this one knows better."""
        if not link.member:
            return
        for node in update.nodes:
            known = self._members.get(node.node_id)
            address = _dialable(node.host)
            if known is None:
                if node.node_id not in (0, self.identity.node_id) and len(self._members) + 1 < self._max_nodes:
                    self._members[node.node_id] = Member(node.node_id, address, NodeType.CACHE)
                    self.version += 1
            elif known.link is None and address and known.address != address:
                known.address = address
                self.version += 1

    def admit(self, link: PeerLink, address: str, node_type: int) -> None:
        """Make the peer of a link a member.

        Args:
            link: the link; its `node_id` is known.
            address: where the peer is reached; what it says in Hello outranks that.
            node_type: its role.
        """
        if not link.connected_now:
            return
        greeting = self._greetings.get(link)
        if greeting is not None and link.dialled:
            address = _dialable(greeting.cluster_address) or address
        version = self.version
        member = self._members.get(link.node_id)
        if member is None:
            member = self._members[link.node_id] = Member(link.node_id, address, node_type)
            self.version += 1
        elif address and member.address != address:
            member.address = address
            self.version += 1
        if member.link is link:
            return
        if member.link is not None:
            if not self._replaces(link, member.link):
                link.lose(_DUPLICATE)
                return
            self._release(member)
        self._remember_members()
        member.link = link
        member.extended = member.extended or link.extended
        link.member = True
        link.when_lost().addCallback(self._lost, member, link)
        _log.info("node {id} at {address} is linked", id=link.node_id, address=link.address)
        update = self.ring()
        for each in self.links() if self.version != version else [link]:
            each.send(update)
        self.link_up(link, greeting)

    # Inside

    def _remember_members(self) -> None:
        if not self.identity.clustered:
            try:
                self.identity.note_members()
            except ConfigurationError as error:
                _log.error("{reason}", reason=str(error))

    def _lost(self, _: object, member: Member, link: PeerLink) -> None:
        if member.link is link:
            member.link = None
            _log.info("node {id} at {address} is not linked any more", id=member.node_id, address=link.address)
            self.link_down(link)

    def _release(self, member: Member) -> None:
        """Let go of a link that another one replaces."""
        link, member.link = member.link, None
        assert link is not None
        link.member = False
        self.link_down(link)
        link.lose("another link to that node replaces it")
        if self._is_silent(link):
            link.transport.abortConnection()

    def _replaces(self, link: PeerLink, incumbent: PeerLink) -> bool:
        """Say which of two links to the same node stays; both nodes come to the same answer."""
        if link.boot != incumbent.boot:
            return link.boot > incumbent.boot
        if self._is_silent(incumbent) or link.dialled == incumbent.dialled:
            # The incumbent is dead, or the same side dialled twice: it has lost the first.
            return True
        smaller_is_own = self.identity.node_id < link.node_id
        return link.dialled == smaller_is_own

    def _is_silent(self, link: PeerLink) -> bool:
        """Say whether a link has answered no heartbeat for so long that it loses against another."""
        silent: bool = self._clock.seconds() - link.last_heard > INCUMBENT_SILENCE_SECONDS
        return silent


_DUPLICATE: Final = "there is a link to that node already"


def _dialable(host: str) -> str:
    try:
        return format_address(*parse_address(host))
    except ConfigurationError:
        return ""


def _host_of(link: PeerLink) -> str:
    """Return the host that a link comes from."""
    try:
        return parse_address(link.address)[0]
    except ConfigurationError:
        return ""


def _nobody(link: PeerLink, greeting: Hello | HelloReply | None = None) -> None:
    """Nobody wants to know of links yet."""


def _nothing() -> None:
    """Nobody wants to know."""
