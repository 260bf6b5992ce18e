"""Who may be a member: a node that asks to be one waits until all agree, and so does one that leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from hypercache.control.commands import AddMember, Code, Outcome, SetMemberState, decode_outcome, proposal
from hypercache.control.state import MemberState
from hypercache.errors import HyperCacheError, MalformedMessageError
from hypercache.wire import ErrorCode, Status
from hypercache.wire.messages import NodeJoinResponse, NodeLeaveResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.python.failure import Failure

    from hypercache.control.state import ControlState
    from hypercache.net.link import PeerLink
    from hypercache.persist.identity import Identity
    from hypercache.wire.messages import Hello, HelloReply, NodeJoinRequest

_log = Logger()


class Agreeing(Protocol):
    """What admission needs of `hypercache.cluster.control_plane.ControlPlane`."""

    @property
    def state(self) -> ControlState:
        """What is agreed on here."""

    @property
    def identity(self) -> Identity:
        """Who this node is."""

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose an entry."""

    def end_membership(self) -> None:
        """Take note that this node is no member any more."""


class Admission:
    """Lets nodes in and out: `hypercache.cluster.membership.Agreement`.

    Args:
        plane: what is agreed on.
        max_nodes: how many members there may be.
    """

    def __init__(self, plane: Agreeing, max_nodes: int) -> None:
        self._plane = plane
        self._max_nodes = max_nodes
        # Who waits for a node to be gone.
        self._leaving: dict[int, list[Deferred[NodeLeaveResponse]]] = {}

    def knows(self, link: PeerLink, node_id: int) -> bool:
        """Whether the node behind a link, which asks to be a member, is one and holds what it held."""
        member = self._plane.state.members.get(node_id)
        if member is None or member.state is MemberState.REJOINING:
            return False
        greeting = link.greeting
        if greeting is None:
            return not member.extended
        # One of an earlier boot, or of no cluster, holds nothing of what it acknowledged (rule 14).
        return bool(greeting.cluster_id) and greeting.boot >= member.boot

    def has_left(self, node_id: int) -> bool:
        """Whether a node was a member, and is none any more."""
        state = self._plane.state
        return node_id in state.removed and node_id not in state.members

    def expelled(self) -> None:
        """Take note that this node is no member any more, as a member says: the log does not reach it to say so."""
        self._plane.end_membership()

    def admit(self, link: PeerLink, request: NodeJoinRequest, address: str) -> Deferred[NodeJoinResponse]:
        """Have a node become a member; fires with what it is answered, and never fails."""
        if not self._plane.state.cluster_id:
            # The founder itself is no member yet: it comes first.
            return succeed(NodeJoinResponse(Status.RETRY_LATER, 0, 0))
        command = self._command(link, request.node_id, address, request.node_type, request.capabilities)
        answer = self._plane.propose(proposal(command))
        return answer.addCallbacks(self._joined, _try_later, (request.node_id,))

    def leave(self, node_id: int) -> Deferred[NodeLeaveResponse]:
        """Have a member leave for good; fires when it is none any more, or with why it stays."""
        if self.has_left(node_id):
            return succeed(NodeLeaveResponse(Status.SUCCESS, 0))
        command = SetMemberState(node_id, MemberState.LEAVING, "it was asked to leave")
        done: Deferred[NodeLeaveResponse] = Deferred()

        def answered(answer: bytes) -> None:
            outcome = decode_outcome(answer)
            if outcome.code is not Code.OK:
                _log.warn("node {id} does not leave: {reason}", id=node_id, reason=outcome.text)
                done.callback(NodeLeaveResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED))
            elif node_id in self._plane.state.members:
                self._leaving.setdefault(node_id, []).append(done)
            else:
                done.callback(NodeLeaveResponse(Status.SUCCESS, 0))

        def failed(failure: Failure) -> None:
            failure.trap(HyperCacheError)
            done.callback(NodeLeaveResponse(Status.RETRY_LATER, 0))

        self._plane.propose(proposal(command)).addCallbacks(answered, failed)
        return done

    def settle(self, state: ControlState) -> None:
        """Answer those who wait for nodes that are gone by now."""
        for node_id in [each for each in self._leaving if each not in state.members]:
            for done in self._leaving.pop(node_id):
                done.callback(NodeLeaveResponse(Status.SUCCESS, 0))

    def accounts(self, links: Iterable[PeerLink]) -> list[AddMember]:
        """Return what members say of themselves over their links; it is proven."""
        members = self._plane.state.members
        found = []
        for link in links:
            known, greeting = members.get(link.node_id), link.greeting
            # One whose Hello names no cluster holds nothing any more: it is let in anew, and is no member before.
            if known is not None and greeting is not None and greeting.cluster_id:
                found.append(self._account(greeting, known.address, known.node_type))
        return found

    def _command(self, link: PeerLink, node_id: int, address: str, node_type: int, capabilities: int) -> AddMember:
        greeting = link.greeting
        if greeting is None:
            return AddMember(node_id, address, node_type, capabilities, extended=False, max_nodes=self._max_nodes)
        return self._account(greeting, address, node_type)

    def _account(self, greeting: Hello | HelloReply, address: str, node_type: int) -> AddMember:
        return AddMember(
            greeting.node_id,
            # What a node says of itself in a Hello that is proven outranks the rest.
            greeting.cluster_address or address,
            node_type,
            int(greeting.capabilities),
            greeting.name,
            greeting.client_address,
            greeting.boot,
            fresh=not greeting.cluster_id,
            max_nodes=self._max_nodes,
        )

    def _joined(self, answer: bytes, node_id: int) -> NodeJoinResponse:
        try:
            outcome: Outcome = decode_outcome(answer)
        except MalformedMessageError as fault:
            _log.error("the answer to the wish of node {id} is none: {fault}", id=node_id, fault=fault)
            return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
        if outcome.code is Code.OK:
            return NodeJoinResponse(Status.SUCCESS, 0, self._plane.identity.cluster_id)
        if outcome.code is Code.REJOIN:
            return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
        _log.warn("node {id} is not let in: {reason}", id=node_id, reason=outcome.text)
        code = ErrorCode.CLUSTER_FULL if outcome.code is Code.FULL else ErrorCode.NOT_AUTHORIZED
        return NodeJoinResponse(Status.ERROR, code, 0)


def _try_later(failure: Failure) -> NodeJoinResponse:
    failure.trap(HyperCacheError)
    return NodeJoinResponse(Status.RETRY_LATER, 0, 0)
