"""The settings of a node that CONFIG GET and CONFIG SET reach, by Redis' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.errors import ConfigurationError
from hypercache.resp.parameters import Parameter, Parameters, parse_integer, parse_memory
from hypercache.store.eviction import REDIS_NAMES, policy_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypercache.config import Settings
    from hypercache.net.clients import ClientLimits
    from hypercache.resp import ServerContext
    from hypercache.store import EvictionPolicy, Keyspace

_INT_MAX = (1 << 31) - 1


def node_parameters(
    settings: Settings,
    keyspace: Keyspace,
    server: ServerContext,
    limits: ClientLimits,
    policies: Mapping[str, EvictionPolicy],
    port_of: Callable[[str], int],
) -> Parameters:
    """Return the settings of a node.

    Args:
        settings: what the node was started with.
        keyspace: holds the bounds of memory.
        server: holds the password.
        limits: what bounds a client.
        policies: the eviction policies there are.
        port_of: returns the port that a section listens on.
    """

    def set_maxmemory(value: str) -> None:
        keyspace.maxmemory = parse_memory(value)

    def set_policy(value: str) -> None:
        try:
            keyspace.policy = policy_named(value, policies)
        except ConfigurationError:
            names = ", ".join(REDIS_NAMES)
            raise ValueError(f"argument(s) must be one of the following: {names}") from None

    def set_samples(value: str) -> None:
        keyspace.samples = parse_integer(value, 1, 64)

    def set_max_clients(value: str) -> None:
        limits.max_clients = parse_integer(value, 1, _INT_MAX)

    def set_timeout(value: str) -> None:
        limits.idle_timeout = parse_integer(value, 0, _INT_MAX)

    def set_password(value: str) -> None:
        server.password = value.encode("utf-8", "surrogateescape")

    def set_value_max(value: str) -> None:
        limits.value_max = server.value_max_bytes = max(1024 * 1024, parse_memory(value))

    def set_query_buffer(value: str) -> None:
        limits.query_buffer = max(1024 * 1024, parse_memory(value))

    redis_names = {ours: redis for redis, ours in REDIS_NAMES.items()}
    return Parameters(
        [
            Parameter("maxmemory", lambda: str(keyspace.maxmemory), set_maxmemory),
            Parameter("maxmemory-policy", lambda: redis_names.get(keyspace.policy.name, keyspace.policy.name), set_policy),
            Parameter("maxmemory-samples", lambda: str(keyspace.samples), set_samples),
            Parameter("maxclients", lambda: str(limits.max_clients), set_max_clients),
            Parameter("timeout", lambda: str(int(limits.idle_timeout)), set_timeout),
            Parameter("requirepass", lambda: server.password.decode("utf-8", "surrogateescape"), set_password),
            Parameter("proto-max-bulk-len", lambda: str(limits.value_max), set_value_max),
            Parameter("client-query-buffer-limit", lambda: str(limits.query_buffer), set_query_buffer),
            Parameter("databases", lambda: str(keyspace.databases)),
            Parameter("port", lambda: str(port_of("resp"))),
            Parameter("bind", lambda: settings.resp.listen),
            Parameter("dir", lambda: settings.node.data_dir),
            # What redis-benchmark and others ask for; nothing is kept on disk.
            Parameter("save", lambda: ""),
            Parameter("appendonly", lambda: "no"),
        ]
    )
