"""INFO's sections and their text."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypercache.resp.context import ServerContext

_EVERYTHING: Final = frozenset(("all", "everything"))
_NOT_BY_DEFAULT: Final = frozenset(("commandstats",))
_UNITS: Final = ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def human(size: int) -> str:
    """Return a size as Redis shows it: ``1.50M``."""
    for unit, letter in _UNITS:
        if size >= unit:
            return f"{size / unit:.2f}{letter}"
    return f"{size}B"


def _setting(server: ServerContext, name: str) -> str:
    parameter = server.parameters.all().get(name)
    return "" if parameter is None else parameter.read()


def _server(server: ServerContext) -> Mapping[str, str | int | float]:
    uptime = max(0, server.keyspace.now_ms - server.started_ms) // 1000
    return {
        "redis_version": server.redis_version,
        "hypercache_version": server.version,
        "redis_mode": "standalone",
        "run_id": server.run_id,
        "server_time_usec": server.keyspace.now_ms * 1000,
        "uptime_in_seconds": uptime,
        "uptime_in_days": uptime // 86400,
    }


def _clients(server: ServerContext) -> Mapping[str, str | int | float]:
    return {
        "connected_clients": len(server.clients),
        "maxclients": _setting(server, "maxclients"),
        "blocked_clients": 0,
        "tracking_clients": 0,
    }


def _memory(server: ServerContext) -> Mapping[str, str | int | float]:
    used = server.keyspace.used_bytes()
    peak = server.keyspace.peak_bytes
    bound = server.keyspace.maxmemory
    return {
        "used_memory": used,
        "used_memory_human": human(used),
        "used_memory_peak": peak,
        "used_memory_peak_human": human(peak),
        "maxmemory": bound,
        "maxmemory_human": human(bound),
        "maxmemory_policy": _setting(server, "maxmemory-policy"),
    }


def _stats(server: ServerContext) -> Mapping[str, str | int | float]:
    stores = list(server.keyspace.all_stores())
    clients = server.clients
    return {
        "total_connections_received": clients.accepted,
        "total_commands_processed": server.commands_processed,
        "total_net_input_bytes": clients.bytes_in,
        "total_net_output_bytes": clients.bytes_out,
        "rejected_connections": clients.rejected,
        "client_output_buffer_limit_disconnections": clients.cut,
        "expired_keys": sum(store.expired for store in stores),
        "evicted_keys": sum(store.evicted for store in stores),
        "keyspace_hits": sum(store.hits for store in stores),
        "keyspace_misses": sum(store.misses for store in stores),
        "total_error_replies": server.error_replies,
        "acl_access_denied_auth": server.table.commands["auth"].failures,
        "protocol_errors": server.protocol_errors,
    }


def _commandstats(server: ServerContext) -> Mapping[str, str | int | float]:
    entries = [each for entry in server.table.commands.values() for each in (entry, *entry.subcommands.values())]
    return {
        f"cmdstat_{entry.name}": f"calls={entry.calls},rejected_calls={entry.rejections},failed_calls={entry.failures}"
        for entry in entries
        if entry.calls or entry.rejections
    }


def _keyspace(server: ServerContext) -> Mapping[str, str | int | float]:
    shown = {}
    for store in server.keyspace.all_stores():
        if len(store):
            index = server.keyspace.index_of(store)
            name = f"db{index}" if index >= 0 else f"store_{store.name}"
            shown[name] = f"keys={len(store)},expires={store.volatile},avg_ttl={store.average_ttl_ms()}"
    return shown


_SECTIONS: Final[Mapping[str, Callable[[ServerContext], Mapping[str, str | int | float]]]] = {
    "server": _server,
    "clients": _clients,
    "memory": _memory,
    "stats": _stats,
    "commandstats": _commandstats,
}


def info_text(server: ServerContext, wanted: set[str]) -> str:
    """Return INFO's text.

    Args:
        server: the node.
        wanted: section names in lower case; ``default``, ``all`` and ``everything`` as Redis has them.
    """
    producers: dict[str, Callable[[], Mapping[str, str | int | float]]] = {
        **{name: partial(produce, server) for name, produce in _SECTIONS.items()},
        **server.sections,
        # Last, as in Redis.
        "keyspace": partial(_keyspace, server),
    }
    everything = bool(wanted & _EVERYTHING)
    by_default = "default" in wanted
    parts = []
    for name, produce in producers.items():
        if everything or name in wanted or (by_default and name not in _NOT_BY_DEFAULT):
            fields = "".join(f"{field}:{value}\r\n" for field, value in produce().items())
            parts.append(f"# {'CPU' if name == 'cpu' else name.capitalize()}\r\n{fields}")
    return "\r\n".join(parts)
