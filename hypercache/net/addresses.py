"""Cluster addresses as text: ``host:port`` and ``[v6]:port``."""

from __future__ import annotations

from hypercache.errors import ConfigurationError


def parse_address(text: str, *, lowest_port: int = 1) -> tuple[str, int]:
    """Return host and port; to listen, port 0 means any.

    Raises:
        ConfigurationError: the text is no address.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isdecimal() or not lowest_port <= int(port) < 65536:
        raise ConfigurationError(f"{text!r} is no address; write HOST:PORT or [IPV6]:PORT")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Return an address as text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
