"""One command of a connection: found, checked, run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.replies import error
from hypercache.resp.tracing import UNTRACED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.resp.session import Session
    from hypercache.resp.table import Command, CommandTable

_SHOWN_ARGUMENTS_BYTES: Final = 128
OUT_OF_MEMORY: Final = "OOM command not allowed when used memory > 'maxmemory'."
_INTERNAL_ERROR_LINE: Final = "ERR internal error, see the node's log"
INTERNAL_ERROR: Final = error(_INTERNAL_ERROR_LINE)


class Executor:
    """Runs single commands; the base of `hypercache.resp.engine.Engine`.

    Args:
        session: the connection's state.
        table: the node's commands.
    """

    __slots__ = ("_cleared", "_due", "_head", "_rebind", "_sampler", "_session", "_since_ms", "_table", "_trace")

    def __init__(self, session: Session, table: CommandTable) -> None:
        self._session = session
        self._table = table
        # Whether what runs commands must be looked up again: one may have changed it.
        self._rebind = False
        tracer = session.server.tracer
        self._sampler = tracer.sampler if tracer is not None else None
        self._trace = table.find(b"hypercache.trace")
        # Whether one of the commands that run is picked to be traced.
        self._due = False
        # How many reads of a store that a log changes may be run by now, and when the log was asked for them.
        self._cleared = 0
        self._since_ms = 0
        # The command that was to run, where it is for a log.
        self._head: Command | None = None

    def _refuse(self, entry: Command | None, line: str) -> bytes:
        """Return the error reply to a command that does not run."""
        if entry is not None:
            entry.rejections += 1
        self._session.server.error_replies += 1
        return error(line)

    def _execute(self, request: list[bytes]) -> bytes | None:
        """Run one command; None where a pause holds it back, or its reply comes later."""
        session = self._session
        server = session.server
        entry = self._table.by_spelling.get(request[0]) or self._table.find(request[0])
        if entry is None:
            return self._refuse(None, _unknown(request))
        if entry.subcommands and len(request) > 1:
            sub = entry.subcommands.get(request[1].lower())
            if sub is None:
                shown = request[1][:_SHOWN_ARGUMENTS_BYTES].decode("utf-8", "surrogateescape")
                return self._refuse(entry, f"ERR unknown subcommand '{shown}'. Try {entry.name.upper()} HELP.")
            entry = sub
        if not entry.min_arguments <= len(request) <= entry.max_arguments:
            return self._refuse(entry, f"ERR wrong number of arguments for '{entry.name}' command")
        if not session.authenticated and not entry.before_auth:
            return self._refuse(entry, "NOAUTH Authentication required.")
        if entry.denies_oom and not session.keyspace.make_room(session.store):
            return self._refuse(entry, OUT_OF_MEMORY)
        if server.pause_until_ms and self._is_paused(entry):
            return None
        session.last_command = entry.name
        entry.calls += 1
        if entry.touches_session:
            self._rebind = True
        try:
            return entry.function(session, request)
        except CommandError as refusal:
            entry.failures += 1
            server.error_replies += 1
            return error(refusal.line)
        except Exception as failure:  # noqa: BLE001 - one command's bug must not take the connection or the node along
            entry.failures += 1
            server.error_replies += 1
            server.report_failure(entry.name, failure)
            return INTERNAL_ERROR

    def _execute_watched(self, request: list[bytes]) -> bytes | None:
        """Run one command and record it, if it is one that is traced."""
        session = self._session
        tracer = session.server.tracer
        assert tracer is not None
        execute = self._execute if session.store.log is None else self._execute_logged
        picked = self._due and not self._cleared and self._sampler is not None and self._sampler.pick()
        entry = self._table.resolve(request)
        if entry is not None and entry is self._trace:
            return execute(request)
        trace = session.trace
        if trace is None and picked:
            trace = tracer.root()
        session.trace = None
        self._rebind = True
        if trace is None or trace is UNTRACED:
            return execute(request)
        reply = tracer.execute(trace, entry, session, request, execute, self._since_ms if self._cleared else 0)
        if reply is None:
            session.trace = trace
        elif reply is INTERNAL_ERROR:
            return error(f"{_INTERNAL_ERROR_LINE} {tracer.label(trace)}")
        return reply

    def _execute_logged(self, request: list[bytes]) -> bytes | None:
        """Run one command while a store is selected that a log changes; None where the log has to be asked."""
        entry = self._data_command(request)
        if entry is None:
            return self._execute(request)
        if self._cleared:
            reply = self._execute(request)
            if reply is not None:
                self._cleared -= 1
            return reply
        session = self._session
        log = session.store.log
        assert log is not None
        refusal = log.refuses(entry, request)
        if refusal is not None:
            return self._refuse(entry, refusal)
        if entry.denies_oom and not session.keyspace.make_room(session.store):
            return self._refuse(entry, OUT_OF_MEMORY)
        if not (session.server.pause_until_ms and self._is_paused(entry)):
            self._head = entry
        return None

    def _data_command(self, request: list[bytes]) -> Command | None:
        """Return the command on data that a request is; None where it is another, or none that may run."""
        entry = self._table.by_spelling.get(request[0]) or self._table.find(request[0])
        if entry is not None and entry.subcommands:
            entry = entry.subcommands.get(request[1].lower()) if len(request) > 1 else None
        if entry is None or entry.touches_session or not entry.min_arguments <= len(request) <= entry.max_arguments:
            return None
        return entry if self._session.authenticated else None

    def _is_paused(self, entry: Command) -> bool:
        server = self._session.server
        if self._session.keyspace.now_ms >= server.pause_until_ms:
            server.pause_until_ms = 0
            return False
        return "write" in entry.flags or (not server.pause_writes_only and entry.name not in ("client|unpause", "client|pause"))


def _unknown(request: list[bytes]) -> str:
    shown = ""
    for argument in _texts(request[1:]):
        if len(shown) >= _SHOWN_ARGUMENTS_BYTES:
            break
        shown += f"'{argument[: _SHOWN_ARGUMENTS_BYTES - len(shown)]}' "
    name = request[0][:_SHOWN_ARGUMENTS_BYTES].decode("utf-8", "surrogateescape")
    return f"ERR unknown command '{name}', with args beginning with: {shown}"


def _texts(arguments: Iterable[bytes]) -> Iterable[str]:
    return (argument[:_SHOWN_ARGUMENTS_BYTES].decode("utf-8", "surrogateescape") for argument in arguments)
