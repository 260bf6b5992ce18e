"""What a connection remembers between two commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.resp.context import ServerContext
    from hypercache.resp.contracts import KeyspaceLike, StoreLike

REPLY_ON: Final = 0
REPLY_OFF: Final = 1
REPLY_SKIP: Final = 2
REPLY_SKIP_NEXT: Final = 3


class Session:
    """The state of one client connection.

    Args:
        client_id: unique in the process, ascending.
        keyspace: the node's stores.
        server: the node's facts and settings.
        now_ms: when it connected, Unix milliseconds.

    Attributes:
        store: the selected store.
        resp: the protocol version of the replies, 2 or 3.
        authenticated: whether commands other than AUTH, HELLO, QUIT and RESET are served.
        closing: set by a command after whose reply the connection closes.
        reply_mode: CLIENT REPLY's state.
        later: set by a command whose reply comes later, which itself returns None: called once with what takes the reply.
        trace: what the next command belongs to (`hypercache.resp.tracing`); None for nothing.
    """

    __slots__ = (
        "authenticated",
        "client_id",
        "closing",
        "commands",
        "connected_ms",
        "keyspace",
        "last_command",
        "last_ms",
        "later",
        "library_name",
        "library_version",
        "name",
        "no_evict",
        "no_touch",
        "reply_mode",
        "resp",
        "server",
        "store",
        "trace",
    )

    def __init__(self, client_id: int, keyspace: KeyspaceLike, server: ServerContext, now_ms: int) -> None:
        self.client_id = client_id
        self.keyspace = keyspace
        self.server = server
        self.connected_ms = self.last_ms = now_ms
        self.commands = 0
        self.last_command = "NULL"
        self.library_name = b""
        self.library_version = b""
        self.closing = False
        self.later: Callable[[Callable[[bytes], None]], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Return to the state of a new connection (RESET)."""
        store = self.keyspace.by_index(0)
        assert store is not None
        self.store: StoreLike = store
        self.resp = 2
        self.name = b""
        self.authenticated = not self.server.password
        self.reply_mode = REPLY_ON
        self.no_evict = False
        self.no_touch = False
        self.trace: object | None = None
