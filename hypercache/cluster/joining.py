"""Links whoever should be linked and is not: the addresses that this node was told to join, for ever, and every member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hypercache.cluster.dialer import Reach
from hypercache.errors import LinkLostError
from hypercache.limits import JOIN_TIMEOUT_SECONDS
from hypercache.net.addresses import format_address, parse_address
from hypercache.wire import ErrorCode, NodeType, Status
from hypercache.wire.messages import NodeJoinRequest, NodeJoinResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.cluster.dialer import Dialer
    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerLink

_log = Logger()
_TEND_SECONDS: Final = 0.1


class Joining:
    """The dialling half of a membership.

    Args:
        membership: knows who is a member, and takes those that are linked.
        join: the addresses that this node was told to join.
        dialer: opens links.
        clock: the reactor.

    Attributes:
        seeds: the addresses that this node was told to join, with the node that was found there, or 0.

    Raises:
        ConfigurationError: one of the addresses is none.
    """

    def __init__(self, membership: Membership, join: Iterable[str], *, dialer: Dialer, clock: Any) -> None:
        self.seeds = {format_address(*parse_address(address)): 0 for address in join}
        self._membership = membership
        self._dialer = dialer
        self._reaches: dict[str, Reach] = {}
        self._stopped = False
        # Over which a node without a cluster asks to be let in.
        self._asked: PeerLink | None = None
        self._tending = LoopingCall(self._tend)
        self._tending.clock = clock

    def start(self) -> None:
        """Begin to dial."""
        self._tending.start(_TEND_SECONDS)

    def stop(self) -> None:
        """Dial nobody any more; links that were dialled end in good order."""
        self._stopped = True
        if self._tending.running:
            self._tending.stop()
        for reach in self._reaches.values():
            reach.stop()
        self._reaches.clear()

    def renew(self, link: PeerLink) -> None:
        """Replace a link that this node dialled: its credentials end soon."""
        for reach in self._reaches.values():
            if reach.link is link:
                reach.renew()

    def identified(self, address: str, node_id: int) -> None:
        """Learn which node is behind an address; no other node is."""
        if address in self.seeds:
            self.seeds[address] = node_id
        for member in self._membership.members:
            if member.address == address and member.node_id != node_id:
                member.address = ""

    def _targets(self) -> dict[str, int]:
        """Return the addresses that should be linked, with the node's id or 0."""
        members = {member.node_id: member for member in self._membership.members}
        targets = {
            address: node_id
            for address, node_id in self.seeds.items()
            if node_id != self._membership.identity.node_id and (node_id not in members or members[node_id].link is None)
        }
        targets |= {member.address: member.node_id for member in members.values() if member.link is None and member.address}
        return targets

    def _tend(self) -> None:
        targets = self._targets()
        linked = set(self._membership.links())
        for address, reach in list(self._reaches.items()):
            if address not in targets and reach.link not in linked:
                # The node is linked from its own side, has another address, or is gone.
                del self._reaches[address]
                reach.stop()
        # One address of a node at a time: two links to it would only replace each other.
        busy = {targets.get(address, 0) for address in self._reaches} - {0}
        for address, node_id in targets.items():
            if address not in self._reaches and node_id not in busy:
                if node_id:
                    busy.add(node_id)
                # At an address that it was told to join this node takes whoever is there.
                meant_id = 0 if address in self.seeds else node_id
                reach = self._reaches[address] = Reach(address, meant_id, self._dialer, self._introduce)
                member = self._membership.member(node_id)
                reach.spoke_hello = member is not None and member.extended
                reach.start()

    async def _introduce(self, link: PeerLink, reach: Reach) -> None:
        """Ask to be a member over a link that is connected, and take its peer for one.

        Raises:
            HyperCacheError: one side will not have it.
        """
        if self._stopped:
            raise LinkLostError("this node shuts down")
        membership = self._membership
        identity = membership.identity
        answer = await self._ask(link)
        if answer.status != Status.SUCCESS:
            greeted = link.greeting.cluster_id if link.greeting is not None else 0
            expelled = answer.error_code == ErrorCode.NOT_AUTHORIZED and 0 != greeted == identity.cluster_id
            if expelled and membership.agreement is not None:
                membership.agreement.expelled()
            raise LinkLostError(_refusal(answer))
        greeted = link.greeting.cluster_id if link.greeting is not None else 0
        if greeted and answer.cluster_id != greeted:
            raise LinkLostError(f"it says Hello for cluster {greeted}, and lets this node join {answer.cluster_id}")
        own = identity.cluster_id or identity.expected_cluster
        if own and answer.cluster_id and answer.cluster_id != own:
            raise LinkLostError(f"it belongs to cluster {answer.cluster_id}, this node to {own}")
        if not identity.cluster_id:
            membership.adopt_cluster(answer.cluster_id, extended=link.extended)
            _log.info("joined cluster {id} at {address}", id=answer.cluster_id, address=reach.address)
        if not link.extended:
            # A base peer has no Hello to say who it is: its address stands for it.
            link.node_id = membership.stand_in_id(reach.address)
            self.identified(reach.address, link.node_id)
        membership.admit(link, reach.address, NodeType.CACHE)
        if not link.member:
            raise LinkLostError(link.ending)

    async def _ask(self, link: PeerLink) -> NodeJoinResponse:
        """Ask the peer of a link to be a member.

        A node whose Hello names no cluster holds nothing of one (consistency.md, rule 14). So it asks one member at a time, and as
        soon as it belongs to the cluster it says so, over new links.

        Raises:
            HyperCacheError: there is no answer, or the question must wait.
        """
        membership = self._membership
        if membership.identity.cluster_id and link.said is not None and not link.said.cluster_id:
            raise LinkLostError("this node joined the cluster since it said Hello")
        if not membership.identity.cluster_id:
            if self._asked is not None:
                raise LinkLostError("another member is asked already")
            self._asked = link
        try:
            answer: NodeJoinResponse = await link.request(membership.join_request(), timeout=JOIN_TIMEOUT_SECONDS)
        finally:
            if self._asked is link:
                self._asked = None
        return answer


def _refusal(answer: NodeJoinResponse) -> str:
    if answer.status == Status.RETRY_LATER:
        return "it belongs to no cluster yet, or wants Hello first; a node that is to found a cluster starts without --join"
    return f"it refused: {answer}"


def request_to_join(node_id: int, address: str, capabilities: int) -> NodeJoinRequest:
    """Return the request of a node that is reached at an address, which may be empty."""
    host, port = parse_address(address) if address else ("", 0)
    return NodeJoinRequest(node_id, port, NodeType.CACHE, capabilities, host)
