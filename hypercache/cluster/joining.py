"""Dials whoever should be linked and is not: the addresses that this node was told to join, for ever, and every member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from hypercache.errors import ConfigurationError, LinkLostError
from hypercache.limits import JOIN_TIMEOUT_SECONDS
from hypercache.net.addresses import format_address, parse_address
from hypercache.wire import NodeType, Status
from hypercache.wire.messages import NodeJoinRequest, NodeJoinResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.cluster.dialer import Dialer
    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerLink
    from hypercache.wire import Message

_log = Logger()
_TEND_SECONDS: Final = 0.1


class Joining:
    """The dialling half of a membership.

    Args:
        membership: knows who is a member, and takes those that are linked.
        join: the addresses that this node was told to join.
        dialer: opens links.
        clock: the reactor.

    Raises:
        ConfigurationError: one of the addresses is none.
    """

    def __init__(self, membership: Membership, join: Iterable[str], *, dialer: Dialer, clock: Any) -> None:
        self.seeds = {format_address(*parse_address(address)): 0 for address in join}
        self._membership = membership
        self._dialer = dialer
        self._clock = clock
        self._dialing: set[str] = set()
        self._stopped = False
        self._tending = LoopingCall(self._tend)
        self._tending.clock = clock

    def start(self) -> None:
        """Begin to dial."""
        self._tending.start(_TEND_SECONDS)

    def stop(self) -> None:
        """Dial nobody any more."""
        self._stopped = True
        if self._tending.running:
            self._tending.stop()

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
        # One address of a node at a time: two links to it would only replace each other.
        busy = {targets.get(address, 0) for address in self._dialing} - {0}
        for address, node_id in targets.items():
            if address not in self._dialing and node_id not in busy and self._dialer.is_due(address):
                if node_id:
                    busy.add(node_id)
                self._dialing.add(address)
                self._dialer.dial(address, self._membership).addBoth(self._dialled, address)

    def _dialled(self, result: Any, address: str) -> None:
        """Take what became of a dial: the link, greeted where the peer knows Hello, or a failure."""
        if isinstance(result, Failure):
            self._dialing.discard(address)
            return
        if self._stopped:
            result.lose("this node shuts down")
            return
        answer = result.request(self._membership.join_request())
        answer.addTimeout(JOIN_TIMEOUT_SECONDS, self._clock)
        answer.addCallbacks(self._join_answered, self._join_failed, callbackArgs=(result, address), errbackArgs=(result, address))

    def _join_failed(self, failure: Any, link: PeerLink, address: str) -> None:
        self._dialing.discard(address)
        lost = failure.check(LinkLostError)
        self._refuse(link, address, failure.getErrorMessage() if lost else "it did not answer the wish to join")

    def _join_answered(self, answer: Message, link: PeerLink, address: str) -> None:
        self._dialing.discard(address)
        if not isinstance(answer, NodeJoinResponse) or answer.status != Status.SUCCESS:
            self._refuse(link, address, _refusal(answer))
            return
        identity = self._membership.identity
        own = identity.cluster_id
        if own and answer.cluster_id and answer.cluster_id != own:
            self._refuse(link, address, f"it belongs to cluster {answer.cluster_id}, this node to {own}")
            return
        if not own:
            try:
                identity.adopt_cluster(answer.cluster_id)
            except ConfigurationError as error:
                self._refuse(link, address, str(error))
                return
            _log.info("joined cluster {id} at {address}", id=answer.cluster_id, address=address)
        if not link.node_id:
            # A base peer has no Hello to say who it is: its address stands for it.
            link.node_id = self._membership.stand_in_id(address)
            self.identified(address, link.node_id)
        self._dialer.succeeded(address)
        self._membership.admit(link, address, NodeType.CACHE)

    def _refuse(self, link: PeerLink, address: str, reason: str) -> None:
        self._dialer.put_off(address, reason, hello=True)
        link.lose(reason)


def _refusal(answer: Message) -> str:
    if isinstance(answer, NodeJoinResponse) and answer.status == Status.RETRY_LATER:
        return "it belongs to no cluster yet, or wants Hello first; a node that is to found a cluster starts without --join"
    return f"it refused: {answer}"


def request_to_join(node_id: int, address: str, capabilities: int) -> NodeJoinRequest:
    """Return the request of a node that is reached at an address, which may be empty."""
    host, port = parse_address(address) if address else ("", 0)
    return NodeJoinRequest(node_id, port, NodeType.CACHE, capabilities, host)
