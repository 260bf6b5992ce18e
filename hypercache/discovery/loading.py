"""From the plug-in package to what a node is composed of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import classImplements

import hypercache.plugins
from hypercache.discovery.admission import INTERFACES, Admission
from hypercache.discovery.modules import PluginModule, plugin_modules
from hypercache.errors import PluginError
from hypercache.interfaces import (
    IAuthProviderFactory,
    IEvictionPolicy,
    IFrameLayerFactory,
    IMessageHandlerFactory,
    IRESPCommand,
)
from hypercache.resp.table import Command
from hypercache.wire import SCHEMA, Message, Schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hypercache.config import PluginSettings
    from hypercache.store import EvictionPolicy

_log = Logger()

# What the decorator `hypercache.resp.table.command` makes is a plug-in as it stands; that package is pure, and knows no interface.
classImplements(Command, IPlugin, IRESPCommand)


class Plugin(msgspec.Struct, frozen=True):
    """A plug-in, or a module in which there is none.

    Attributes:
        name: its name; a module's where it is one that failed as a whole.
        interface: what it is; empty where that is not known.
        module: the module that it stands in.
        file: where that lies.
        distribution, version: what it was installed with; empty where that is not known.
        reason: why it is left out; empty where it is not, or where the settings say so.
    """

    name: str
    interface: str
    module: str
    file: str
    distribution: str
    version: str
    reason: str = ""


class Plugins(msgspec.Struct, frozen=True):
    """The plug-ins of a node.

    Attributes:
        found: those that are used.
        failed: those that cannot be.
        disabled: those that the settings leave out.
        schema: HyperCache's messages and theirs.
        messages: theirs alone.
        handler_factories: `IMessageHandlerFactory` objects.
        auth_providers: `IAuthProviderFactory` objects, by name.
        layers: `IFrameLayerFactory` objects.
        commands: for the command table.
        policies: eviction policies, by name.
    """

    found: tuple[Plugin, ...] = ()
    failed: tuple[Plugin, ...] = ()
    disabled: tuple[Plugin, ...] = ()
    schema: Schema = SCHEMA
    messages: tuple[type[Message], ...] = ()
    handler_factories: tuple[Any, ...] = ()
    auth_providers: dict[str, Any] = {}
    layers: tuple[Any, ...] = ()
    commands: tuple[Command, ...] = ()
    policies: dict[str, EvictionPolicy] = {}

    @property
    def capabilities(self) -> int:
        """The bits of Hello that the layers add."""
        bits = 0
        for layer in self.layers:
            bits |= layer.capability
        return bits


def load_plugins(settings: PluginSettings) -> Plugins:
    """Find, import and check all plug-ins.

    They are taken in the order of their modules' names, and within a module in its own; of two that contradict each other the
    first is taken.

    Args:
        settings: which to leave out, and whether to go on without those that fail.

    Raises:
        PluginError: some failed, and the settings are strict; the text names them all.
    """
    findings = _Findings(settings.disabled)
    for module in plugin_modules(hypercache.plugins, settings.disabled):
        findings.add(module)
    if findings.failed and settings.strict:
        raise PluginError("; ".join(complaint(plugin) for plugin in findings.failed))
    admission = findings.admission
    taken = admission.taken
    return Plugins(
        found=tuple(findings.found),
        failed=tuple(findings.failed),
        disabled=tuple(findings.disabled),
        schema=admission.schema,
        messages=admission.messages,
        handler_factories=tuple(taken[IMessageHandlerFactory].values()),
        auth_providers=taken[IAuthProviderFactory],
        layers=tuple(taken[IFrameLayerFactory].values()),
        commands=tuple(taken[IRESPCommand].values()),
        policies=taken[IEvictionPolicy],
    )


def complaint(plugin: Plugin) -> str:
    """Return why a plug-in is left out, as a sentence."""
    return f"the plug-in {plugin.name} ({plugin.file}) is left out: {plugin.reason}"


def log_plugins(plugins: Plugins) -> None:
    """Log what is used and what is left out."""
    for plugin in plugins.found:
        _log.info("plug-in {name} ({interface}) from {module}", name=plugin.name, interface=plugin.interface, module=plugin.module)
    for plugin in plugins.failed:
        _log.error("{complaint}", complaint=complaint(plugin))


class _Findings:
    """What was found so far.

    Args:
        left_out: the names of plug-ins that are not to be taken.
    """

    def __init__(self, left_out: Collection[str]) -> None:
        self.admission = Admission()
        self.found: list[Plugin] = []
        self.failed: list[Plugin] = []
        self.disabled: list[Plugin] = []
        self._left_out = left_out

    def add(self, module: PluginModule) -> None:
        """Take what a module holds."""
        if module.reason:
            self.failed.append(_described(module, reason=module.reason))
        elif module.namespace is None:
            self.disabled.append(_described(module))
        else:
            candidates = list(_candidates(module.namespace))
            for name, candidate, interfaces in candidates:
                self._add_object(module, name, candidate, interfaces)
            if not candidates:
                reason = "no object in it is a plug-in: one that provides twisted.plugin.IPlugin"
                self.failed.append(_described(module, reason=reason))

    def _add_object(self, module: PluginModule, name: str, candidate: Any, interfaces: list[Any]) -> None:
        if name in self._left_out:
            self.disabled += [_described(module, name, interface) for interface in interfaces or [None]]
        elif not IPlugin.providedBy(candidate):
            self.failed.append(_described(module, name, interfaces[0], "it does not provide twisted.plugin.IPlugin"))
        elif not interfaces:
            self.failed.append(_described(module, name, reason="it provides none of the interfaces that a plug-in may be of"))
        else:
            for interface in interfaces:
                try:
                    self.admission.admit(interface, candidate, module.name)
                except PluginError as error:
                    self.failed.append(_described(module, name, interface, str(error)))
                else:
                    self.found.append(_described(module, name, interface))


def _candidates(namespace: dict[str, Any]) -> Iterator[tuple[str, Any, list[Any]]]:
    """Yield what in a module looks like a plug-in: its name, itself, and what it may be; each object once."""
    seen: set[int] = set()
    for attribute, candidate in list(namespace.items()):
        interfaces = [interface for interface in INTERFACES if interface.providedBy(candidate)]
        if not (interfaces or IPlugin.providedBy(candidate)) or id(candidate) in seen:
            continue
        # A subcommand comes with its container; HyperCache's own commands may be imported to be used.
        if isinstance(candidate, Command) and (
            "|" in candidate.name or candidate.function.__module__.startswith("hypercache.resp.")
        ):
            continue
        seen.add(id(candidate))
        yield _name_of(candidate) or attribute, candidate, interfaces


def _name_of(candidate: Any) -> str:
    try:
        name = candidate.name
    except Exception:  # noqa: BLE001 - it may be a property, which may do anything
        return ""
    return name if isinstance(name, str) else ""


def _described(module: PluginModule, name: str = "", interface: Any = None, reason: str = "") -> Plugin:
    return Plugin(
        name or module.name.rpartition(".")[2],
        interface.__name__ if interface is not None else "",
        module.name,
        module.file,
        module.distribution,
        module.version,
        reason,
    )
