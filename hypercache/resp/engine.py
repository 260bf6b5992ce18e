"""Everything of one read in, everything to write out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.limits import LARGE_REPLY_BYTES, REPLIES_PER_READ_MAX_BYTES
from hypercache.resp.parser import RequestError
from hypercache.resp.replies import NIL2, NIL3, OK, error
from hypercache.resp.session import REPLY_ON, REPLY_SKIP, REPLY_SKIP_NEXT
from hypercache.resp.tracing import UNTRACED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.resp.contracts import StoreLike
    from hypercache.resp.parser import RequestParser
    from hypercache.resp.session import Session
    from hypercache.resp.table import Command, CommandTable

    _Binding = tuple[
        bool,
        Callable[[list[bytes]], bytes | None],
        Callable[[bytes], bytes | None],
        Callable[[bytes, bytes], None],
        Callable[[StoreLike], bool] | None,
        bytes,
    ]

_SHOWN_ARGUMENTS_BYTES: Final = 128
_HEADERS_COUNT: Final = 1024
_HEADERS: Final = tuple(b"$%d\r\n" % size for size in range(_HEADERS_COUNT))
_OUT_OF_MEMORY: Final = "OOM command not allowed when used memory > 'maxmemory'."
_INTERNAL_ERROR_LINE: Final = "ERR internal error, see the node's log"
_INTERNAL_ERROR: Final = error(_INTERNAL_ERROR_LINE)


class Engine:
    """Runs the commands of one connection.

    One call takes one read: at most as many commands as fit in it, so that no connection holds the loop for longer than that.

    Args:
        session: the connection's state.
        table: the node's commands.
        parser: the connection's parser.
    """

    __slots__ = (
        "_due",
        "_fault",
        "_get",
        "_parser",
        "_rebind",
        "_sampler",
        "_session",
        "_set",
        "_stalled",
        "_table",
        "_trace",
        "_unread",
    )

    def __init__(self, session: Session, table: CommandTable, parser: RequestParser) -> None:
        self._session = session
        self._table = table
        self._parser = parser
        self._get = table.commands["get"]
        self._set = table.commands["set"]
        # While CLIENT PAUSE holds a command back, or the replies so far are large enough for one write, the rest waits here; the
        # fault that ended the parsing is answered behind it.
        self._stalled: list[list[bytes]] = []
        self._unread: list[bytes] = []
        self._fault: str | None = None
        self._rebind = False
        tracer = session.server.tracer
        self._sampler = tracer.sampler if tracer is not None else None
        self._trace = table.find(b"hypercache.trace")
        # Whether one of the commands that run is picked to be traced.
        self._due = False
        parser.authenticated = session.authenticated

    @property
    def stalled(self) -> bool:
        """Whether commands wait: for a pause to end, or for large replies to go out. The door calls `feed` with nothing then."""
        return bool(self._stalled)

    def feed(self, data: bytes, now_ms: int) -> bytes:
        """Run what was read.

        Args:
            data: the bytes of one read.
            now_ms: Unix milliseconds.

        Returns:
            All replies, joined. `Session.closing` says whether the connection must close after them.
        """
        session = self._session
        if session.keyspace.now_ms != now_ms:
            session.keyspace.advance(now_ms)
        session.last_ms = now_ms
        replies: list[bytes] = []
        if self._stalled:
            if data:
                self._unread.append(data)
            stalled, self._stalled = self._stalled, []
            self._run(stalled, replies)
            if self._stalled or session.closing:
                return b"".join(replies)
            data, self._unread = b"".join(self._unread), []
        if self._fault is None:
            self._parser.authenticated = session.authenticated
            if session.authenticated:
                requests = self._parser.take(data)
                if requests:
                    self._run(requests, replies)
                self._fault = self._parser.fault
            else:
                self._fault = self._feed_guarded(data, replies)
        if self._fault is not None and not session.closing and not self._stalled:
            session.server.protocol_errors += 1
            if session.reply_mode == REPLY_ON:
                replies.append(error(f"ERR {self._fault}"))
            session.closing = True
        return replies[0] if len(replies) == 1 else b"".join(replies)

    def _feed_guarded(self, data: bytes, replies: list[bytes]) -> str | None:
        """Run one request at a time, so that each is held to the limits of the state that the one before left."""
        self._parser.feed(data)
        try:
            for request in self._parser.requests():
                self._run([request], replies)
                self._parser.authenticated = self._session.authenticated
                if self._session.closing or self._stalled:
                    break
        except RequestError as fault:
            return str(fault)
        return None

    def _run(self, requests: list[list[bytes]], replies: list[bytes]) -> None:
        """Run requests until all are done, one is held back, or one closes the connection."""
        session = self._session
        if self._sampler is not None:
            self._due = self._sampler.due(len(requests))
        plain, execute, get, put, make_room, null = self._bind()
        gets = sets = others = large = 0
        pending = iter(requests)
        while True:
            try:
                for request in pending:
                    # The two commands that most of any cache's traffic consists of, without look-up, call and counting: a quarter
                    # of their cost.
                    if plain:
                        if len(request) == 3:
                            name, key, value = request
                            if name == b"SET" or name == b"set":
                                if make_room is None or make_room(session.store):
                                    sets += 1
                                    put(key, value)
                                    replies.append(OK)
                                else:
                                    replies.append(self._refuse(self._set, _OUT_OF_MEMORY))
                                continue
                        elif len(request) == 2:
                            name, key = request
                            if name == b"GET" or name == b"get":
                                gets += 1
                                found = get(key)
                                if found is None:
                                    replies.append(null)
                                    continue
                                size = len(found)
                                if size < _HEADERS_COUNT:
                                    # Three pieces for the join at the end: a third of the cost of formatting one.
                                    replies += (_HEADERS[size], found, b"\r\n")
                                    continue
                                replies.append(b"$%d\r\n%b\r\n" % (size, found))
                                large += size
                                if large > REPLIES_PER_READ_MAX_BYTES:
                                    self._stalled = list(pending)
                                    break
                                continue
                    reply = execute(request)
                    if reply is None:
                        self._stalled = [request, *pending]
                        break
                    others += 1
                    self._add(reply, replies)
                    if session.closing:
                        break
                    if len(reply) > LARGE_REPLY_BYTES:
                        large += len(reply)
                        if large > REPLIES_PER_READ_MAX_BYTES:
                            self._stalled = list(pending)
                            break
                    if self._rebind:
                        plain, execute, get, put, make_room, null = self._bind()
            except Exception as failure:  # noqa: BLE001 - a bug of the store must not take the connection or the node along
                session.server.report_failure("get or set", failure)
                session.server.error_replies += 1
                replies.append(_INTERNAL_ERROR)
            else:
                break
        self._get.calls += gets
        self._set.calls += sets
        session.commands += gets + sets + others
        session.server.commands_processed += gets + sets + others
        if not others and (gets or sets):
            session.last_command = "get" if gets else "set"

    def _bind(self) -> _Binding:
        """Return what runs commands, and what GET and SET need; first whether nothing but themselves decides about them now."""
        session = self._session
        store = session.store
        self._rebind = False
        watched = self._due or session.trace is not None
        plain = (
            session.authenticated
            and session.reply_mode == REPLY_ON
            and not watched
            and not session.no_touch
            and not session.server.pause_until_ms
        )
        execute = self._execute_watched if watched else self._execute
        make_room = session.keyspace.make_room if session.keyspace.maxmemory or store.maxmemory else None
        return plain, execute, store.get, store.put, make_room, NIL2 if session.resp == 2 else NIL3

    def _add(self, reply: bytes, replies: list[bytes]) -> None:
        """Add a reply where CLIENT REPLY lets it through."""
        session = self._session
        if session.reply_mode == REPLY_ON:
            replies.append(reply)
        elif session.reply_mode == REPLY_SKIP_NEXT:
            session.reply_mode = REPLY_SKIP
        elif session.reply_mode == REPLY_SKIP:
            session.reply_mode = REPLY_ON
            self._rebind = True

    def _refuse(self, entry: Command | None, line: str) -> bytes:
        """Return the error reply to a command that does not run."""
        if entry is not None:
            entry.rejections += 1
        self._session.server.error_replies += 1
        return error(line)

    def _execute(self, request: list[bytes]) -> bytes | None:
        """Run one command; None where a pause holds it back."""
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
            return self._refuse(entry, _OUT_OF_MEMORY)
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
            return _INTERNAL_ERROR

    def _execute_watched(self, request: list[bytes]) -> bytes | None:
        """Run one command and record it, if it is one that is traced."""
        session = self._session
        tracer = session.server.tracer
        assert tracer is not None
        picked = self._due and self._sampler is not None and self._sampler.pick()
        entry = self._table.resolve(request)
        if entry is not None and entry is self._trace:
            return self._execute(request)
        trace = session.trace
        if trace is None and picked:
            trace = tracer.root()
        session.trace = None
        self._rebind = True
        if trace is None or trace is UNTRACED:
            return self._execute(request)
        reply = tracer.execute(trace, entry, session, request, self._execute)
        if reply is None:
            session.trace = trace
        elif reply is _INTERNAL_ERROR:
            return error(f"{_INTERNAL_ERROR_LINE} {tracer.label(trace)}")
        return reply

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
