"""The members as clients see them, and how clients let one go (`hypercache.resp.contracts.ClusterMembers`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercache.cluster.gateway import NO_LEADER
from hypercache.control.state import NodeKind
from hypercache.errors import HyperCacheError
from hypercache.resp.definitions import MemberFacts
from hypercache.resp.replies import OK, error
from hypercache.wire import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.cluster.control_plane import ControlPlane
    from hypercache.control.state import Member
    from hypercache.wire.messages import NodeLeaveResponse


class NamedMembers:
    """The members of a node's cluster.

    Args:
        plane: what is agreed on.
        clock: the reactor.
    """

    def __init__(self, plane: ControlPlane, clock: Any) -> None:
        self._plane = plane
        self._clock = clock

    def all(self) -> list[MemberFacts]:
        """Return who is a member, by id."""
        members = self._plane.state.members
        return [self._facts(members[node_id]) for node_id in sorted(members)]

    def _facts(self, member: Member) -> MemberFacts:
        state, leader = self._plane.state, self._plane.leader
        if not member.extended:
            role = "base peer"
        elif member.node_type != NodeKind.CACHE:
            role = "follower"
        elif member.node_id == leader:
            role = "leader"
        else:
            role = "voter" if member.node_id in state.voters else "learner"
        is_self = member.node_id == self._plane.identity.node_id
        return MemberFacts(member.node_id, member.name, member.state, role, member.address, member.client_address, is_self=is_self)

    def remove(self, node_id: int, done: Callable[[bytes], None]) -> None:
        """Have a member leave for good; ``done`` is called later, with the reply.

        Args:
            node_id: the member; 0 for this node.
            done: takes the reply.
        """
        leaving = node_id or self._plane.identity.node_id
        self._clock.callLater(0, self._remove, leaving, done)

    def _remove(self, node_id: int, done: Callable[[bytes], None]) -> None:
        def answered(answer: NodeLeaveResponse) -> None:
            if answer.status == Status.SUCCESS:
                done(OK)
            elif answer.status == Status.RETRY_LATER:
                done(error(NO_LEADER))
            else:
                done(error(f"ERR node {node_id} is no member, or the last one that can vote; the node's log says which"))

        self._plane.admission.leave(node_id).addCallback(answered)

    def transfer(self, node_id: int, done: Callable[[bytes], None]) -> None:
        """Hand the leadership to another voter; ``done`` is called later, with the reply."""
        self._clock.callLater(0, self._transfer, node_id, done)

    def _transfer(self, node_id: int, done: Callable[[bytes], None]) -> None:
        try:
            self._plane.transfer(node_id)
        except HyperCacheError as fault:
            done(error(f"ERR {fault}"))
        else:
            done(OK)
