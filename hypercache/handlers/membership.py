"""The messages about who is a member: Hello, Goodbye, NodeJoinRequest, HashRingQuery, HashRingUpdate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface import implementer

from hypercache.handlers.sender import impostor
from hypercache.interfaces import IMessageHandler
from hypercache.wire.messages import Goodbye, HashRingQuery, HashRingUpdate, Hello, HelloReply, NodeJoinRequest

if TYPE_CHECKING:
    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerContext
    from hypercache.wire.messages import GenericError, NodeJoinResponse

_log = Logger()


class _OfMembership:
    """A handler that asks the membership."""

    requires_auth = True

    def __init__(self, membership: Membership) -> None:
        self._membership = membership


@implementer(IMessageHandler)
class HelloHandler(_OfMembership):
    """Answers Hello and speaks version 0x02 from then on."""

    message_type = Hello.TYPE
    requires_auth = False

    def handle(self, context: PeerContext, message: Hello) -> Any:
        """Return this node's own greeting; close where the peer cannot stay."""
        link = context.link
        refusal = self._membership.greeted(link, message)
        reply = self._membership.hello(HelloReply)
        if refusal is not None:
            # The reply goes out first: from it the dialler learns why this is no peer for it.
            link.send(reply)
            link.lose(refusal)
            return None
        link.become_extended()
        return reply


@implementer(IMessageHandler)
class GoodbyeHandler(_OfMembership):
    """Closes the link that the peer is about to close."""

    message_type = Goodbye.TYPE

    def handle(self, context: PeerContext, message: Goodbye) -> None:
        """Close."""
        context.link.lose(f"the peer says goodbye: {message.reason}")


@implementer(IMessageHandler)
class JoinHandler(_OfMembership):
    """Answers NodeJoinRequest."""

    message_type = NodeJoinRequest.TYPE

    def handle(self, context: PeerContext, message: NodeJoinRequest) -> NodeJoinResponse | GenericError | None:
        """Return whether the node is a member now."""
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
