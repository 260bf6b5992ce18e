"""Commands as the log has them run: with the entry's time and luck, and with nothing that only one node knows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

from hypercache.errors import CommandError
from hypercache.limits import RAFT_ANSWER_MAX_BYTES, RAFT_VALUE_MAX_BYTES
from hypercache.resp import built_in_commands
from hypercache.resp.replies import OK, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.store import Store

_INTERNAL_ERROR: Final = error("ERR internal error, see the node's log")
_REFUSED: Final = error("ERR this command does not run on a store of level raft")
_ANSWER_FULL: Final = error("ERR not done: the replies to the commands before it are too long together")
_OTHER_STORES: Final = "ERR a store of level raft exchanges no keys with others"


class _Server:
    """What commands may know of the server: the same on every node."""

    value_max_bytes = RAFT_VALUE_MAX_BYTES

    def __init__(self) -> None:
        self.chance = 0
        self._rng: random.Random | None = None

    def draw(self, chance: int) -> None:
        """Take an entry's luck."""
        self.chance = chance
        self._rng = None

    @property
    def rng(self) -> random.Random:
        """Luck, the same for everybody who applies the entry."""
        if self._rng is None:
            self._rng = random.Random(self.chance)
        return self._rng


class _Session:
    """What commands need of a session; it is its keyspace as well, for there is one store alone."""

    no_touch = False
    authenticated = True

    def __init__(self, server: _Server) -> None:
        self.server = server
        self.keyspace = self
        self.resp = 2
        self.store: Any = None

    def by_index(self, index: int) -> Any:
        """Refuse: what other stores hold is no part of the log."""
        raise CommandError(_OTHER_STORES)

    def all_stores(self) -> list[Any]:
        """Return the one store."""
        return [self.store]


class Applier:
    """Runs the writes of entries.

    Args:
        report_failure: told the command's name and the exception where a command failed by a bug.

    Attributes:
        writes: the names of the commands that it runs. Those of plug-ins are not among them: other members may lack them.
    """

    def __init__(self, report_failure: Callable[[str, Exception], None]) -> None:
        self._table = built_in_commands()
        self._report_failure = report_failure
        self._server = _Server()
        self._session: Any = _Session(self._server)
        self._answer_bytes = 0
        entries = self._table.commands.values()
        self.writes = frozenset(entry.name for entry in entries if "write" in entry.flags)

    def begin(self, chance: int) -> None:
        """Begin an entry.

        Args:
            chance: 64 random bits of the leader's.
        """
        self._server.draw(chance)
        self._answer_bytes = 0

    def run(self, store: Store, resp: int, requests: list[list[bytes]]) -> list[bytes]:
        """Run commands of one connection; return a reply to each."""
        session = self._session
        session.store = store
        session.resp = resp
        put = store.put
        replies: list[bytes] = []
        for request in requests:
            if len(request) == 3 and request[0] in (b"SET", b"set"):
                put(request[1], request[2])
                replies.append(OK)
            else:
                reply = self._run_one(request) if self._answer_bytes <= RAFT_ANSWER_MAX_BYTES else _ANSWER_FULL
                self._answer_bytes += len(reply)
                replies.append(reply)
        return replies

    def _run_one(self, request: list[bytes]) -> bytes:
        entry = self._table.find(request[0]) if request else None
        if entry is None or entry.name not in self.writes or not entry.accepts(len(request)):
            return _REFUSED
        try:
            reply = entry.function(self._session, request)
        except CommandError as refusal:
            return error(refusal.line)
        except MemoryError:
            # Other members may have had enough: this one must not go on with another state.
            raise
        except Exception as failure:  # noqa: BLE001 - one command's bug must not stop every member
            self._report_failure(entry.name, failure)
            return _INTERNAL_ERROR
        return _REFUSED if reply is None else reply
