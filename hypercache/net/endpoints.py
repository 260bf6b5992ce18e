"""Where a port listens: a Twisted endpoint string, a bare port, HOST:PORT, or ``off``."""

from __future__ import annotations

import ipaddress
from typing import Final

from hypercache.errors import ConfigurationError
from hypercache.net.addresses import parse_address

OFF: Final = "off"
_LOOPBACK_NAMES: Final = frozenset(("localhost", "localhost.localdomain", "ip6-localhost"))


def endpoint_string(setting: str, what: str) -> str | None:
    """Return a Twisted endpoint string, None where the port is off.

    Args:
        setting: as the operator wrote it.
        what: the setting's name, for the error.

    Raises:
        ConfigurationError: it is nothing of that.
    """
    text = setting.strip()
    if text == OFF:
        return None
    if text.isdecimal():
        if int(text) > 65535:
            raise ConfigurationError(f"{what} = {setting!r}: a port is at most 65535")
        return f"tcp:{text}:interface=127.0.0.1"
    kind = text.partition(":")[0]
    if kind in ("tcp", "tcp6", "ssl", "unix", "systemd", "tls"):
        return text
    try:
        host, port = parse_address(text, lowest_port=0)
    except ConfigurationError:
        raise ConfigurationError(
            f"{what} = {setting!r} is no place to listen; write a port, HOST:PORT, a Twisted endpoint string such as "
            "tcp:6379:interface=127.0.0.1, or off"
        ) from None
    family = "tcp6" if ":" in host else "tcp"
    escaped = host.replace(":", "\\:")
    return f"{family}:{port}:interface={escaped}"


def is_loopback(endpoint: str) -> bool:
    """Say whether an endpoint string can be reached from this machine alone."""
    kind, *options = endpoint.replace("\\:", "\0").split(":")
    if kind == "unix":
        return True
    for option in options:
        name, _, value = option.partition("=")
        if name == "interface":
            host = value.replace("\0", ":")
            if host in _LOOPBACK_NAMES:
                return True
            try:
                return ipaddress.ip_address(host).is_loopback
            except ValueError:
                return False
    return False
