"""The messages about who is a member: NodeJoinRequest, HashRingQuery, HashRingUpdate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.handlers.sender import impostor
from hypercache.interfaces import IMessageHandler
from hypercache.wire.messages import HashRingQuery, HashRingUpdate, NodeJoinRequest

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerContext
    from hypercache.wire.messages import GenericError, NodeJoinResponse


class _OfMembership:
    """A handler that asks the membership."""

    requires_auth = True

    def __init__(self, membership: Membership) -> None:
        self._membership = membership


@implementer(IMessageHandler)
class JoinHandler(_OfMembership):
    """Answers NodeJoinRequest."""

    message_type = NodeJoinRequest.TYPE

    def handle(
        self, context: PeerContext, message: NodeJoinRequest
    ) -> NodeJoinResponse | Deferred[NodeJoinResponse] | GenericError:
        """Return whether the node is a member now; that may take until all agree."""
        refusal = impostor(context.link, message.node_id)
        if refusal is not None:
            return refusal
        return self._membership.join_requested(context.link, message)


@implementer(IMessageHandler)
class RingQueryHandler(_OfMembership):
    """Answers HashRingQuery."""

    message_type = HashRingQuery.TYPE

    def handle(self, context: PeerContext, message: HashRingQuery) -> HashRingUpdate | GenericError:
        """Return the ring."""
        return impostor(context.link, message.node_id) or self._membership.ring()


@implementer(IMessageHandler)
class RingUpdateHandler(_OfMembership):
    """Takes HashRingUpdate from members."""

    message_type = HashRingUpdate.TYPE

    def handle(self, context: PeerContext, message: HashRingUpdate) -> None:
        """Learn members."""
        self._membership.ring_updated(context.link, message)
