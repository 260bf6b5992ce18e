"""What the message handler factories among the plug-ins make for one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from hypercache.discovery.admission import violation
from hypercache.errors import PluginError
from hypercache.interfaces import IMessageHandler

if TYPE_CHECKING:
    from hypercache.discovery.loading import Plugins
    from hypercache.net.services import Services

_log = Logger()


def plugin_handlers(plugins: Plugins, services: Services) -> list[Any]:
    """Have the plug-ins make their message handlers.

    Args:
        plugins: the plug-ins.
        services: the node's.

    Returns:
        `IMessageHandler` objects for the router. Those of a factory that fails are left out, and its failure is logged.

    Raises:
        PluginError: a factory failed, and the settings are strict.
    """
    handlers: list[Any] = []
    for factory in plugins.handler_factories:
        try:
            handlers += _made(factory, services)
        except Exception as error:
            what = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
            reason = f"the plug-in {factory.name} makes no handlers: {what}"
            if services.settings.plugins.strict:
                raise PluginError(reason) from error
            _log.failure("{reason}", reason=reason)
    return handlers


def _made(factory: Any, services: Services) -> list[Any]:
    handlers = list(factory.handlers(services))
    free = {cls.TYPE for cls in factory.messages}
    for handler in handlers:
        try:
            verifyObject(IMessageHandler, handler)
        except Invalid as error:
            raise PluginError(violation(IMessageHandler, error)) from None
        if handler.message_type not in free:
            raise PluginError(f"the type {handler.message_type:#04x} is none of its messages', or has a handler already")
        free.remove(handler.message_type)
    return handlers
