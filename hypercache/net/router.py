"""From message type to handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface.verify import verifyObject

from hypercache.errors import SchemaError
from hypercache.interfaces import IMessageHandler
from hypercache.wire.messages import GenericError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.wire.schema import Schema


class Router:
    """The handlers of a node.

    Args:
        schema: the messages that are understood.
        handlers: objects that provide `IMessageHandler`.

    Attributes:
        answers: the types that only ever answer: nobody handles them, and who asked gets them.

    Raises:
        SchemaError: two handlers take the same type.
    """

    def __init__(self, schema: Schema, handlers: Iterable[Any] = ()) -> None:
        self.schema = schema
        self._handlers: dict[int, Any] = {}
        self.answers = schema.answer_types | {GenericError.TYPE}
        for handler in handlers:
            self.add(handler)

    def add(self, handler: Any) -> None:
        """Add a handler.

        Raises:
            SchemaError: its type has one already.
        """
        verifyObject(IMessageHandler, handler)
        if handler.message_type in self._handlers:
            raise SchemaError(f"the type 0x{handler.message_type:02x} has a handler already")
        self._handlers[handler.message_type] = handler
        self.answers -= {handler.message_type}

    def handler_for(self, message_type: int) -> Any | None:
        """Return the handler of a type, None where nobody takes it."""
        return self._handlers.get(message_type)
