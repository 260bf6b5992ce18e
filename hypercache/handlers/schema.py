"""SchemaRequest: answered by the declarations of all messages understood here, plug-ins' included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zope.interface import implementer

from hypercache.interfaces import IMessageHandler
from hypercache.limits import SMALL_FRAME_BYTES
from hypercache.wire import ErrorCode
from hypercache.wire.messages import GenericError, SchemaRequest, SchemaResponse

if TYPE_CHECKING:
    from hypercache.net.peer import PeerContext
    from hypercache.wire.schema import Schema


@implementer(IMessageHandler)
class SchemaHandler:
    """Answers SchemaRequest.

    Args:
        schema: the messages that are understood.
    """

    message_type = SchemaRequest.TYPE
    requires_auth = True

    def __init__(self, schema: Schema) -> None:
        answer = SchemaResponse(json.dumps(schema.document(), separators=(",", ":")))
        length = len(answer.encode_payload())
        self._answer: SchemaResponse | GenericError = answer
        if length > SMALL_FRAME_BYTES:
            # No peer accepts a longer answer of that type.
            self._answer = GenericError(ErrorCode.MESSAGE_TOO_LARGE, SMALL_FRAME_BYTES, f"the schema is {length} bytes long")

    def handle(self, context: PeerContext, message: SchemaRequest) -> SchemaResponse | GenericError:
        """Return the schema."""
        return self._answer
