"""``twistd hypercache ROLE``: options to settings to a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import globalLogPublisher
from twisted.python import usage

from hypercache.config import Settings, load_settings
from hypercache.errors import ConfigurationError, PluginError, StorageError

if TYPE_CHECKING:
    from twisted.application.service import IService


class NodeOptions(usage.Options):
    """The options of every role."""

    optParameters = [  # noqa: RUF012 - as usage.Options wants it
        ["config", "c", None, "TOML file with the settings"],
        ["resp", None, None, "Where Redis clients connect: a port, HOST:PORT, an endpoint string, or off"],
        ["listen", None, None, "Where other nodes connect"],
        ["admin", None, None, "Where operators connect, by HTTP"],
        ["advertise", None, None, "HOST:PORT at which other nodes reach this one"],
        ["data-dir", None, None, "Directory for what the node keeps"],
        ["name", None, None, "The node's name"],
    ]
    longdesc = "A single node needs no option. A further one joins with --join HOST:PORT of any other node's cluster port."

    def __init__(self) -> None:
        super().__init__()
        self["join"] = []
        self["set"] = []

    def opt_join(self, address: str) -> None:
        """HOST:PORT of a node to join; may be given several times."""
        self["join"].append(address)

    def opt_set(self, override: str) -> None:
        """section.key=value overrides the configuration file; may be given several times."""
        self["set"].append(override)

    def postOptions(self) -> None:
        """Make the settings."""
        try:
            self["settings"] = self._settings()
        except ConfigurationError as error:
            raise usage.UsageError(str(error)) from None

    def _settings(self) -> Settings:
        named = {
            "resp.listen": self["resp"],
            "cluster.listen": self["listen"],
            "admin.listen": self["admin"],
            "node.advertise": self["advertise"],
            "node.data_dir": self["data-dir"],
            "node.name": self["name"],
            "cluster.join": ",".join(self["join"]) or None,
        }
        overrides = [f"{name}={value}" for name, value in named.items() if value is not None]
        return load_settings(read_config(self["config"]), [*self["set"], *overrides])


class Options(usage.Options):
    """The roles."""

    subCommands = [["node", None, NodeOptions, "A cache node: serves Redis clients, holds keys"]]  # noqa: RUF012

    def postOptions(self) -> None:
        """Insist on a role."""
        if self.subCommand is None:
            raise usage.UsageError("name a role: twistd hypercache node")


def read_config(path: str | None) -> str:
    """Return a configuration file's text; empty for no file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if path is None:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {error}") from None


def makeService(options: Options) -> IService:
    """Return the service of the chosen role."""
    # Not before the role is known: importing a node's parts costs half a second, which --help need not pay.
    from twisted.internet import reactor

    from hypercache.roles.node import NodeService
    from hypercache.roles.process import make_time_steady
    from hypercache.tracing import mark_traced

    settings: Any = options.subOptions["settings"]
    # Before twistd adds the observer that writes.
    globalLogPublisher.addObserver(mark_traced)
    make_time_steady(reactor)
    try:
        return NodeService(settings, reactor)
    except (ConfigurationError, PluginError, StorageError) as error:
        raise SystemExit(f"hypercache: {error}") from None
