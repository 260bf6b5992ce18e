"""NodeLeaveRequest: a node leaves the cluster for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.handlers.sender import impostor
from hypercache.interfaces import IMessageHandler
from hypercache.wire import ErrorCode, Status
from hypercache.wire.messages import NodeLeaveRequest, NodeLeaveResponse

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from hypercache.cluster.admission import Admission
    from hypercache.net.peer import PeerContext
    from hypercache.wire.messages import GenericError


@implementer(IMessageHandler)
class LeaveHandler:
    """Answers NodeLeaveRequest of members.

    Args:
        admission: who may be a member.
    """

    message_type = NodeLeaveRequest.TYPE
    requires_auth = True

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def handle(
        self, context: PeerContext, message: NodeLeaveRequest
    ) -> Deferred[NodeLeaveResponse] | NodeLeaveResponse | GenericError:
        """Return whether the node is gone, when it is."""
        refusal = impostor(context.link, message.node_id)
        if refusal is not None:
            return refusal
        if not context.member:
            return NodeLeaveResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED)
        return self._admission.leave(message.leaving)
