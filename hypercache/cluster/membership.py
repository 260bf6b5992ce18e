"""Who is a member, over which link, and who must be dialled.

Every member keeps one link to every other. A node dials the addresses it was told to join and the members it has no link to. Two
links between the same nodes settle to one: the higher boot number stays, then the one that the node with the smaller id dialled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import xxhash
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from hypercache.cluster.joining import Joining, request_to_join
from hypercache.cluster.members import Member, node_hash
from hypercache.errors import ConfigurationError
from hypercache.limits import AUTH_FAILURE_DELAY_SECONDS, INCUMBENT_SILENCE_SECONDS, MAX_NODES_COUNT, VNODES_COUNT
from hypercache.net.addresses import format_address, parse_address
from hypercache.net.negotiation import speaks_ours
from hypercache.wire import Capability, ErrorCode, NodeType, Status
from hypercache.wire.header import BASE_VERSION, HIGHEST_VERSION
from hypercache.wire.messages import (
    NONCE_BYTES,
    HashRingUpdate,
    Hello,
    HelloReply,
    NodeJoinRequest,
    NodeJoinResponse,
    RingNode,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from hypercache.cluster.dialer import Dialer
    from hypercache.cluster.members import Agreement, NodeFacts
    from hypercache.control.state import Member as AgreedMember
    from hypercache.net.peer import PeerLink
    from hypercache.persist.identity import Identity

_log = Logger()
_UNSPECIFIED: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what a peer may say of itself, not bound


class Membership:
    """The members of this node's cluster.

    Where there is an agreement, it says who is a member, and a node that asks to be one waits for it. Base peers alone make no
    cluster that agrees on anything: a node that joined one learns of the others by HashRingUpdate.

    Args:
        identity: who this node is.
        facts: what it tells others.
        join: the addresses that it was told to join.
        dialer: opens links.
        clock: the reactor.
        rng: for nonces and cluster ids.
        wall: returns Unix seconds.
        provider: the `IAuthProvider` of the node.
        failure_delay: seconds before a failed authentication is answered.
        max_nodes: how many members there may be, this one included.

    Attributes:
        version: grows with each change of the members; all have the same where they agree on it.
        agreement: what the members agree on; None while this node has no part in that.
        adopted: called when this node has joined a cluster that agrees.
        link_up, link_down: called with the link of a member.
        link_moved: called with a link and the one that takes its place.
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
        provider: Any,
        failure_delay: float = AUTH_FAILURE_DELAY_SECONDS,
        max_nodes: int = MAX_NODES_COUNT,
    ) -> None:
        self.identity = identity
        self.facts = facts
        self.provider = provider
        self.failure_delay = failure_delay
        self.wall = wall
        self.version = 1
        self.link_up: Callable[[PeerLink], None] = _nobody
        self.link_down: Callable[[PeerLink], None] = _nobody
        self.link_moved: Callable[[PeerLink, PeerLink], None] = _nobody
        self.expects_members: Callable[[], None] = _nothing
        self.adopted: Callable[[], None] = _nothing
        self.agreement: Agreement | None = None
        self._members: dict[int, Member] = {}
        self._stopped = False
        self._joining = Joining(self, join, dialer=dialer, clock=clock)
        self._clock = clock
        self._rng = rng
        self._max_nodes = max_nodes
        if not identity.cluster_id and not self._joining.seeds:
            # Only a node that was told to join nobody founds a cluster (consistency.md, rule 13).
            identity.adopt_cluster(identity.expected_cluster or rng.randrange(1, 1 << 64))
            _log.info("founded cluster {id}", id=identity.cluster_id)

    # Towards the roles

    def start(self) -> None:
        """Begin to dial."""
        if self.identity.clustered or self._joining.seeds:
            self.expects_members()
        self._joining.start()

    def stop(self) -> Deferred[Any]:
        """Dial nobody any more, and say goodbye to the members.

        Returns:
            Fires when the last link is gone; a member that does not answer the goodbye is given up after a while.
        """
        self._stopped = True
        links = self.links()
        self._joining.stop()
        for link in links:
            link.retire("this node shuts down")
        return DeferredList([link.when_lost() for link in links])

    @property
    def members(self) -> list[Member]:
        """The other members."""
        return list(self._members.values())

    def member(self, node_id: int) -> Member | None:
        """Return a member by its id, None where there is none."""
        return self._members.get(node_id)

    def link_to(self, node_id: int) -> PeerLink | None:
        """Return the link to a member, None where there is none now."""
        member = self._members.get(node_id)
        return member.link if member is not None else None

    def links(self) -> list[PeerLink]:
        """Return the links to members."""
        return [member.link for member in self._members.values() if member.link is not None]

    # What this node says

    def hello(self, cls: type[Hello | HelloReply], key_id: str) -> Hello | HelloReply:
        """Return a greeting of this node."""
        return cls(
            lowest_version=BASE_VERSION,
            highest_version=HIGHEST_VERSION,
            capabilities=self.facts.capabilities,
            node_id=self.identity.node_id,
            boot=self.identity.boot,
            cluster_id=self.identity.cluster_id,
            node_type=NodeType.CACHE,
            clock=int(self.wall() * 1000) << 16,
            nonce=self._rng.randbytes(NONCE_BYTES),
            max_frame=self.facts.max_frame,
            schema_hash=self.facts.schema_hash,
            key_id=key_id,
            name=self.facts.name,
            client_address=self.facts.client_address,
            cluster_address=self.facts.cluster_address,
        )

    def join_request(self) -> NodeJoinRequest:
        """Return this node's wish to be a member."""
        return request_to_join(self.identity.node_id, self.facts.cluster_address, int(self.facts.capabilities))

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

    def judge(self, link: PeerLink, greeting: Hello | HelloReply) -> str | None:
        """Take what a peer says of itself; return why the link cannot be, or None. It is unproven: nothing is learned from it."""
        if self._stopped:
            return "this node shuts down"
        own = self.identity.cluster_id or self.identity.expected_cluster
        if greeting.cluster_id and own and greeting.cluster_id != own:
            return f"it belongs to cluster {greeting.cluster_id}, this node to {own}"
        if not speaks_ours(greeting):
            return f"it speaks versions {greeting.lowest_version} to {greeting.highest_version}, not {HIGHEST_VERSION}"
        if not greeting.node_id:
            return "it says that it is node 0, and no node is"
        link.node_id = greeting.node_id
        link.boot = greeting.boot
        return None

    def settle(self, link: PeerLink) -> str | None:
        """Decide whether the link of a peer that is who it says stays; return why it goes, or None."""
        meant = link.meant
        if meant is not None:
            self._joining.identified(meant.address, link.node_id)
        if link.node_id == self.identity.node_id:
            return "this is the node itself"
        if meant is not None and meant.node_id not in (0, link.node_id):
            return f"node {link.node_id} is there, not {meant.node_id}"
        incumbent = self._members.get(link.node_id)
        if incumbent is None or incumbent.link is None or incumbent.link is link or self._replaces(link, incumbent.link):
            return None
        return _DUPLICATE

    def join_requested(self, link: PeerLink, request: NodeJoinRequest) -> NodeJoinResponse | Deferred[NodeJoinResponse]:
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
        host = _host_of(link) if request.host in _UNSPECIFIED else request.host
        address = _dialable(format_address(host, request.port)) if request.port else ""
        success = NodeJoinResponse(Status.SUCCESS, 0, self.identity.cluster_id)
        if self.agreement is None or self.agreement.knows(link, node_id):
            return self._welcome(success, link, request, address)
        return self.agreement.admit(link, request, address).addCallback(self._welcome, link, request, address)

    def _welcome(self, answer: NodeJoinResponse, link: PeerLink, request: NodeJoinRequest, address: str) -> NodeJoinResponse:
        """Take the peer of a link for a member once it has its answer, so that it knows that before it hears more."""
        if answer.status == Status.SUCCESS:
            link.node_id = request.node_id
            self._clock.callLater(0, self.admit, link, address, request.node_type)
        return answer

    def adopt_cluster(self, cluster_id: int, *, extended: bool) -> None:
        """Belong to a cluster from now on.

        Args:
            cluster_id: which.
            extended: whether its members agree on what there is: base peers do not.

        Raises:
            ConfigurationError: it cannot be written down.
        """
        self.identity.adopt_cluster(cluster_id, joined=True)
        if extended:
            self.adopted()

    def agreed(self, members: Mapping[int, AgreedMember], removed: Iterable[int], version: int) -> None:
        """Take what the members agree on.

        Args:
            members: all of them, this node too.
            removed: who was a member and is none any more.
            version: of the ring.
        """
        for node_id in removed:
            self._remove(node_id)
        for node_id, each in members.items():
            if node_id == self.identity.node_id:
                continue
            known = self._members.get(node_id)
            address = _dialable(each.address)
            if known is None:
                self._members[node_id] = Member(node_id, address, each.node_type, None, each.extended)
                continue
            known.extended = known.extended or each.extended
            if known.link is None and address:
                # Of a node that is linked its Hello knows better.
                known.address = address
        if version > self.version:
            self.version = version
            if members.keys() - {self.identity.node_id}:
                self._remember_members()
            update = self.ring()
            for link in self.links():
                link.send(update)

    def _remove(self, node_id: int) -> None:
        """Have no more to do with a node that is no member any more."""
        member = self._members.pop(node_id, None)
        if member is not None and member.link is not None:
            link = member.link
            member.link = None
            self.link_down(link)
            link.member = False
            link.retire("this node is no member of the cluster any more")

    def ring_updated(self, link: PeerLink, update: HashRingUpdate) -> None:
        """Learn members from a member; of a node that is linked, this one knows better."""
        if not link.member:
            return
        if self.agreement is not None and update.version <= self.version:
            # It is what is agreed on here already, or was.
            return
        for node in update.nodes:
            known = self._members.get(node.node_id)
            address = _dialable(node.host)
            if known is None:
                if node.node_id not in (0, self.identity.node_id) and len(self._members) + 1 < self._max_nodes:
                    self._members[node.node_id] = Member(node.node_id, address, NodeType.CACHE)
                    self._changed()
            elif known.link is None and address and known.address != address:
                known.address = address
                self._changed()

    def admit(self, link: PeerLink, address: str, node_type: int) -> None:
        """Make the peer of a link a member.

        Args:
            link: the link; its `node_id` is known.
            address: where the peer is reached; what it says in Hello outranks that.
            node_type: its role.
        """
        if not link.connected_now:
            return
        if self.agreement is not None and self.agreement.has_left(link.node_id):
            link.lose("it is no member of the cluster any more")
            return
        if link.greeting is not None and link.dialled:
            address = _dialable(link.greeting.cluster_address) or address
        version = self.version
        member = self._members.get(link.node_id)
        if member is None:
            member = self._members[link.node_id] = Member(link.node_id, address, node_type)
            self._changed()
        elif address and member.address != address:
            member.address = address
            self._changed()
        replaced = member.link
        if replaced is link:
            return
        if replaced is not None and not self._replaces(link, replaced):
            link.lose(_DUPLICATE)
            return
        self._remember_members()
        member.link = link
        member.extended = member.extended or link.extended
        link.member = True
        link.when_lost().addCallback(self._lost, member, link)
        _log.info("node {id} at {address} is linked", id=link.node_id, address=link.address)
        update = self.ring()
        for each in self.links() if self.version != version else [link]:
            each.send(update)
        if replaced is None:
            self.link_up(link)
        else:
            self._replace(replaced, link)

    def renew(self, link: PeerLink) -> None:
        """Take note that a link's credentials end soon: who dialled it dials again, where there are others by now."""
        if link.dialled and self.provider.key_id() != link.key_id:
            self._joining.renew(link)

    # Inside

    def _changed(self) -> None:
        if self.agreement is None:
            self.version += 1

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

    def _replace(self, old: PeerLink, new: PeerLink) -> None:
        """Let go of a link that another one replaces; what was asked over it is answered over it still, where it lives."""
        old.factory.metrics.links_replaced += 1
        same_boot = old.boot == new.boot and old.extended and new.extended
        if same_boot and not self._is_silent(old):
            self.link_moved(old, new)
            old.retire("another link to that node replaces it")
            return
        self.link_down(old)
        old.cut("another link to that node replaces it")
        self.link_up(new)

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
        silent: bool = link.silence(self._clock.seconds()) > INCUMBENT_SILENCE_SECONDS
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


def _nobody(*links: PeerLink) -> None:
    """Nobody wants to know of links yet."""


def _nothing() -> None:
    """Nobody wants to know."""
