"""Who is a member, over which link, and who must be dialled.

Every member keeps one link to every other. A node dials the addresses it was told to join and the members it has no link to. Two
links between the same nodes settle to one: the higher boot number stays, then the one that the node with the smaller id dialled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import xxhash
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from hypercache.errors import ConfigurationError
from hypercache.limits import MAX_NODES_COUNT, VNODES_COUNT
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
_TEND_SECONDS: Final = 0.1
CAPABILITIES: Final = Capability.STAMPS


class Member(msgspec.Struct):
    """One node of the cluster.

    Attributes:
        node_id: its id; the address may change, the id never does.
        address: where its cluster port is reached; empty where it cannot be dialled.
        node_type: its role.
        link: the link to it, None while there is none.
    """

    node_id: int
    address: str
    node_type: int
    link: PeerLink | None = None


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
        link_up, link_down: called with the link of a member.
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
        self.link_up: Callable[[PeerLink], None] = _nobody
        self.link_down: Callable[[PeerLink], None] = _nobody
        self._members: dict[int, Member] = {}
        self._seeds = {format_address(*parse_address(address)): 0 for address in join}
        self._dialer = dialer
        self._dialing: set[str] = set()
        self._clock = clock
        self._rng = rng
        self._wall = wall
        self._max_nodes = max_nodes
        self._stopped = False
        self._tending = LoopingCall(self._tend)
        self._tending.clock = clock
        if not identity.cluster_id and not self._seeds:
            # Only a node that was told to join nobody founds a cluster (consistency.md, rule 13).
            identity.adopt_cluster(rng.randrange(1, 1 << 64))
            _log.info("founded cluster {id}", id=identity.cluster_id)

    # Towards the roles

    def start(self) -> None:
        """Begin to dial."""
        self._tending.start(_TEND_SECONDS)

    def stop(self) -> None:
        """Dial nobody any more, and tell the members that this node goes."""
        self._stopped = True
        if self._tending.running:
            self._tending.stop()
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
        """Learn which node is behind an address that this one was told to join."""
        if address in self._seeds:
            self._seeds[address] = node_id

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
                return "there is a link to that node already"
            self._release(incumbent)
        return None

    def join_requested(self, link: PeerLink, request: NodeJoinRequest) -> NodeJoinResponse:
        """Take a node's wish to be a member; the members hear of it where that is granted."""
        if link.node_id and request.node_id != link.node_id:
            return NodeJoinResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED, 0)
        if request.node_id in (0, self.identity.node_id):
            return NodeJoinResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED, 0)
        if not self.identity.cluster_id:
            return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
        if request.node_id not in self._members and len(self._members) + 1 >= self._max_nodes:
            return NodeJoinResponse(Status.ERROR, ErrorCode.CLUSTER_FULL, 0)
        link.node_id = request.node_id
        address = format_address(request.host, request.port) if request.host and request.port else ""
        # After the answer, so that the joiner knows it is a member before it hears more.
        self._clock.callLater(0, self._admit, link, address, request.node_type)
        return NodeJoinResponse(Status.SUCCESS, 0, self.identity.cluster_id)

    def ring_updated(self, link: PeerLink, update: HashRingUpdate) -> None:
        """Learn members from a member."""
        if not link.member:
            return
        for node in update.nodes:
            if node.node_id in (0, self.identity.node_id) or len(self._members) + 1 >= self._max_nodes:
                continue
            known = self._members.get(node.node_id)
            if known is None:
                self._members[node.node_id] = Member(node.node_id, _dialable(node.host), NodeType.CACHE)
                self.version += 1
            elif not known.address:
                known.address = _dialable(node.host)

    # Inside

    def _admit(self, link: PeerLink, address: str, node_type: int) -> None:
        """Make the peer of a link a member."""
        if not link.connected_now:
            return
        member = self._members.get(link.node_id)
        if member is None:
            member = self._members[link.node_id] = Member(link.node_id, address, node_type)
            self.version += 1
        elif member.link is not None and member.link is not link:
            if not self._replaces(link, member.link):
                link.lose("there is a link to that node already")
                return
            self._release(member)
        if address and member.address != address:
            member.address = address
            self.version += 1
        member.link = link
        link.member = True
        link.when_lost().addCallback(self._lost, member, link)
        _log.info("node {id} at {address} is linked", id=link.node_id, address=link.address)
        update = self.ring()
        for each in self.links():
            each.send(update)
        self.link_up(link)

    def _lost(self, _: object, member: Member, link: PeerLink) -> None:
        if member.link is link:
            member.link = None
            _log.info("node {id} at {address} is not linked any more", id=member.node_id, address=link.address)
            self.link_down(link)

    def _release(self, member: Member) -> None:
        """Let go of a link that another one replaces."""
        link, member.link = member.link, None
        assert link is not None
        self.link_down(link)
        link.lose("another link to that node replaces it")

    def _replaces(self, link: PeerLink, incumbent: PeerLink) -> bool:
        """Say which of two links to the same node stays; both nodes come to the same answer."""
        if link.boot != incumbent.boot:
            return link.boot > incumbent.boot
        if link.dialled == incumbent.dialled:
            # The same side dialled twice: it has lost the first.
            return True
        smaller_is_own = self.identity.node_id < link.node_id
        return link.dialled == smaller_is_own

    def _tend(self) -> None:
        """Dial whoever should be linked and is not."""
        linked = {member.node_id for member in self._members.values() if member.link is not None}
        wanted = {address for address, node_id in self._seeds.items() if node_id not in (*linked, self.identity.node_id)}
        wanted |= {member.address for member in self._members.values() if member.link is None and member.address}
        for address in wanted - self._dialing:
            if self._dialer.is_due(address):
                self._dialing.add(address)
                self._dialer.dial(address, self).addBoth(self._dialled, address)

    def _dialled(self, result: Any, address: str) -> None:
        """Take what became of a dial: the link, greeted where the peer knows Hello, or a failure."""
        if isinstance(result, Failure):
            self._dialing.discard(address)
            return
        if self._stopped:
            result.lose("this node shuts down")
            return
        host, port = parse_address(self.facts.cluster_address)
        request = NodeJoinRequest(self.identity.node_id, port, NodeType.CACHE, CAPABILITIES, host)
        result.request(request).addCallbacks(
            self._join_answered, self._join_failed, callbackArgs=(result, address), errbackArgs=(address,)
        )

    def _join_failed(self, failure: Any, address: str) -> None:
        self._dialing.discard(address)
        self._dialer.put_off(address)

    def _join_answered(self, answer: Message, link: PeerLink, address: str) -> None:
        self._dialing.discard(address)
        if isinstance(answer, NodeJoinResponse) and answer.status == Status.SUCCESS:
            own = self.identity.cluster_id
            if own and answer.cluster_id != own and link.extended:
                self._refuse(link, address, f"it belongs to cluster {answer.cluster_id}, this node to {own}")
                return
            if not own:
                self.identity.adopt_cluster(answer.cluster_id)
                _log.info("joined cluster {id} at {address}", id=answer.cluster_id, address=address)
            if not link.node_id:
                # A base peer has no Hello to say who it is: its address stands for it.
                link.node_id = node_hash(hash_of_address(address)) or 1
                self.identified(address, link.node_id)
            self._dialer.succeeded(address)
            self._admit(link, address, NodeType.CACHE)
        elif isinstance(answer, NodeJoinResponse) and answer.status == Status.RETRY_LATER:
            self._refuse(link, address, "it belongs to no cluster yet; a node that is to found one starts without --join")
        else:
            self._refuse(link, address, f"it refused: {answer}")

    def _refuse(self, link: PeerLink, address: str, reason: str) -> None:
        _log.error("cannot join {address}: {reason}", address=address, reason=reason)
        self._dialer.put_off(address)
        link.lose(reason)

    def greet(self, link: PeerLink) -> Deferred[Message]:
        """Send Hello over a link that was dialled."""
        link.accept_extended()
        return link.request(self.hello(Hello))


def hash_of_address(address: str) -> int:
    """Return a number of 64 bits that stands for an address."""
    return xxhash.xxh64_intdigest(address.encode())


def _dialable(host: str) -> str:
    try:
        return format_address(*parse_address(host))
    except ConfigurationError:
        return ""


def _nobody(link: PeerLink) -> None:
    """Nobody wants to know of links yet."""
