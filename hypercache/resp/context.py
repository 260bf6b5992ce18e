"""What commands may know and change of the node that serves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.limits import VALUE_MAX_BYTES

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from hypercache.resp.contracts import Clients, ClusterMembers, KeyspaceLike, NamedStores
    from hypercache.resp.parameters import Parameters
    from hypercache.resp.table import CommandTable
    from hypercache.resp.tracing import CommandTracer

REDIS_VERSION: Final = "7.0.15"
"""The Redis whose commands and texts these are; clients switch features by it."""


class ServerContext:
    """The node as its commands see it.

    Args:
        version: HyperCache's version.
        run_id: 40 hexadecimal digits, new at each start.
        started_ms: when the node started, Unix milliseconds.
        password: what AUTH expects; empty for no authentication.
        clients: the connections at the door.
        rng: for commands with randomness.
        report_failure: told the command's name and the exception where a command failed by a bug.
        tracer: records traced commands; None where nothing is ever traced.
        sections: INFO's sections that others provide: name to a function that returns its fields.

    Attributes:
        table: the node's commands; set once the table is built.
        parameters: the settings that CONFIG reaches; set once they are wired.
        commands_processed, error_replies, protocol_errors: counters.
        pause_until_ms: until when CLIENT PAUSE holds commands back; 0 for no pause.
        value_max_bytes: how long a value may become (``proto-max-bulk-len``).
        stores: the stores that the cluster has defined; None where there is no cluster to ask.
        members: its members; None likewise.
        pause_writes_only: whether that is for writes alone.
    """

    redis_version = REDIS_VERSION
    table: CommandTable
    parameters: Parameters

    def __init__(
        self,
        *,
        version: str,
        run_id: str,
        started_ms: int,
        password: bytes,
        clients: Clients,
        keyspace: KeyspaceLike,
        rng: random.Random,
        report_failure: Callable[[str, Exception], None],
        sections: Mapping[str, Callable[[], Mapping[str, str | int | float]]],
        tracer: CommandTracer | None = None,
    ) -> None:
        self.version = version
        self.run_id = run_id
        self.started_ms = started_ms
        self.password = password
        self.clients = clients
        self.keyspace = keyspace
        self.rng = rng
        self.report_failure = report_failure
        self.sections = dict(sections)
        self.tracer = tracer
        self.commands_processed = 0
        self.error_replies = 0
        self.protocol_errors = 0
        self.pause_until_ms = 0
        self.pause_writes_only = False
        self.stores: NamedStores | None = None
        self.members: ClusterMembers | None = None
        self.value_max_bytes = VALUE_MAX_BYTES
