"""What a plug-in must be to be taken: what its interface says, and no contradiction to HyperCache or to those taken before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from hypercache.auth.providers import built_in_factories
from hypercache.errors import PluginError, SchemaError
from hypercache.interfaces import IAuthProviderFactory, IEvictionPolicy, IFrameLayerFactory, IMessageHandlerFactory, IRESPCommand
from hypercache.layers.compression import CompressionFactory
from hypercache.layers.rate import RateFactory
from hypercache.layers.signing import SigningFactory
from hypercache.resp import built_in_commands
from hypercache.resp.table import Command
from hypercache.store import built_in_policies
from hypercache.store.eviction import REDIS_NAMES
from hypercache.wire import SCHEMA, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INTERFACES: Final = (IMessageHandlerFactory, IAuthProviderFactory, IFrameLayerFactory, IRESPCommand, IEvictionPolicy)
"""What a plug-in may be."""

PLUGIN_TYPES: Final = range(0x80, 0xF0)
"""The message types that are plug-ins' (wire.md, section 4)."""

PLUGIN_CAPABILITIES: Final = frozenset(1 << bit for bit in range(16, 32))
"""The bits of Hello that are plug-ins'; HyperCache keeps the lower half for itself."""

_OWN_NAMES: Final[Mapping[Any, frozenset[str]]] = {
    IMessageHandlerFactory: frozenset(),
    IAuthProviderFactory: frozenset(factory.name for factory in built_in_factories()),
    IFrameLayerFactory: frozenset(factory.name for factory in (SigningFactory, CompressionFactory, RateFactory)),
    IRESPCommand: frozenset(built_in_commands().commands),
    IEvictionPolicy: frozenset((*built_in_policies(), *REDIS_NAMES)),
}


class Admission:
    """The plug-ins taken so far.

    Attributes:
        schema: HyperCache's messages and theirs.
        messages: theirs alone.
        taken: by interface, then by name; of commands what the table takes.
    """

    def __init__(self) -> None:
        self.schema = SCHEMA
        self.messages: tuple[type[Message], ...] = ()
        self.taken: dict[Any, dict[str, Any]] = {interface: {} for interface in INTERFACES}
        self._modules: dict[tuple[Any, str], str] = {}
        self._capabilities: dict[int, str] = {}

    def admit(self, interface: Any, plugin: Any, module: str) -> None:
        """Take a plug-in.

        Args:
            interface: what it is to be taken as, of `INTERFACES`.
            plugin: the object.
            module: where it comes from.

        Raises:
            PluginError: it cannot be taken; the text says why.
        """
        try:
            verifyObject(interface, plugin)
            name = self._free_name(interface, plugin.name)
            taken = _RULES[interface](self, plugin)
        except Invalid as error:
            raise PluginError(violation(interface, error)) from None
        except SchemaError as error:
            raise PluginError(str(error)) from None
        except PluginError:
            raise
        except Exception as error:  # noqa: BLE001 - its attributes may be properties, which may do anything
            raise PluginError(f"looking at it failed: {type(error).__name__}: {error}") from None
        self.taken[interface][name] = taken
        self._modules[interface, name] = module

    def _free_name(self, interface: Any, name: Any) -> str:
        _require(isinstance(name, str) and name, f"its name must be a text, not {name!r}")
        _require(name not in _OWN_NAMES[interface], f"the name {name!r} is HyperCache's own")
        other = self._modules.get((interface, name))
        _require(other is None, f"the name {name!r} is taken by {other}")
        return str(name)

    def _take_messages(self, factory: Any) -> Any:
        messages = factory.messages
        _require(isinstance(messages, tuple) and messages, "its messages must be a tuple of classes, one at least")
        for cls in messages:
            _require(isinstance(cls, type) and issubclass(cls, Message), f"{cls!r} is no subclass of hypercache.wire.Message")
            _require(
                cls.TYPE in PLUGIN_TYPES,
                f"{cls.__name__}: the type {cls.TYPE:#04x} is outside of {PLUGIN_TYPES[0]:#04x} to {PLUGIN_TYPES[-1]:#04x}",
            )
        schema = self.schema.extended(messages)
        for cls in messages:
            unknown = cls.ANSWER >= 0 and schema.by_type(cls.ANSWER) is None
            _require(not unknown, f"{cls.__name__}: no message has the type {cls.ANSWER:#04x} of its answer")
        self.schema = schema
        self.messages += messages
        return factory

    def _take_layer(self, factory: Any) -> Any:
        _require(_is_integer(factory.order), f"its order must be a whole number, not {factory.order!r}")
        _require(isinstance(factory.base_peers, bool), f"its base_peers must be True or False, not {factory.base_peers!r}")
        bit = factory.capability
        if bit != 0:
            _require(bit in PLUGIN_CAPABILITIES, f"its capability must be 0 or one of the bits 16 to 31, not {bit!r}")
            other = self._capabilities.setdefault(bit, factory.name)
            _require(other == factory.name, f"the layer {other!r} has its capability {bit:#x} already")
        return factory

    def _take_command(self, plugin: Any) -> Command:
        name, arity, flags, keys = plugin.name, plugin.arity, plugin.flags, plugin.keys
        spelled_well = name.isascii() and name.isprintable() and name == name.lower() and not set(name) & set(" |")
        _require(spelled_well, f"the name {name!r} must be in lower case, without spaces and bars")
        _require(_is_integer(arity) and arity != 0, f"its arity must be a whole number other than 0, not {arity!r}")
        _require(
            isinstance(flags, frozenset | set) and all(isinstance(flag, str) for flag in flags),
            f"its flags must be a set of texts, not {flags!r}",
        )
        _require(
            isinstance(keys, tuple) and len(keys) == 3 and all(map(_is_integer, keys)),
            f"its keys must be a tuple of three whole numbers, not {keys!r}",
        )
        texts = (plugin.group, plugin.since, plugin.summary)
        _require(all(isinstance(text, str) for text in texts), "its group, since and summary must be texts")
        if isinstance(plugin, Command):
            return plugin
        return Command(name, plugin.function, arity, frozenset(flags), keys, *texts)

    def _take_as_it_is(self, plugin: Any) -> Any:
        return plugin

    def _take_policy(self, policy: Any) -> Any:
        for flag in ("evicts", "volatile_only", "counts_uses"):
            value = getattr(policy, flag)
            _require(isinstance(value, bool), f"its {flag} must be True or False, not {value!r}")
        return policy


def violation(interface: Any, error: Invalid) -> str:
    """Return what an object lacks of its interface, in one line, without the object itself."""
    lacks = " ".join(str(error).split()).rpartition("has failed to implement interface ")[2]
    return f"it is no {interface.__name__}: {lacks.partition(': ')[2] or lacks}"


_RULES: Final[Mapping[Any, Callable[[Admission, Any], Any]]] = {
    IMessageHandlerFactory: Admission._take_messages,
    IAuthProviderFactory: Admission._take_as_it_is,
    IFrameLayerFactory: Admission._take_layer,
    IRESPCommand: Admission._take_command,
    IEvictionPolicy: Admission._take_policy,
}


def _require(fulfilled: object, reason: str) -> None:
    if not fulfilled:
        raise PluginError(reason)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
