"""Everything of one read in, everything to write out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.limits import LARGE_REPLY_BYTES, REPLIES_PER_READ_MAX_BYTES
from hypercache.resp.parser import RequestError
from hypercache.resp.replies import NIL2, NIL3, OK, error
from hypercache.resp.session import REPLY_ON, REPLY_SKIP, REPLY_SKIP_NEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.resp.parser import RequestParser
    from hypercache.resp.session import Session
    from hypercache.resp.table import Command, CommandTable

_SHOWN_ARGUMENTS_BYTES: Final = 128


class Engine:
    """Runs the commands of one connection.

    One call takes one read: at most as many commands as fit in it, so that no connection holds the loop for longer than that.

    Args:
        session: the connection's state.
        table: the node's commands.
        parser: the connection's parser.
    """

    __slots__ = ("_get", "_parser", "_session", "_set", "_stalled", "_table", "_unread")

    def __init__(self, session: Session, table: CommandTable, parser: RequestParser) -> None:
        self._session = session
        self._table = table
        self._parser = parser
        self._get = table.commands["get"]
        self._set = table.commands["set"]
        # While CLIENT PAUSE holds a command back, or the replies so far are large enough for one write, the rest waits here.
        self._stalled: list[list[bytes]] = []
        self._unread: list[bytes] = []
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
            if self._stalled:
                return b"".join(replies)
            data, self._unread = b"".join(self._unread), []
        if self._parser.authenticated:
            requests = self._parser.take(data)
            self._run(requests, replies)
            fault = self._parser.fault
        else:
            fault = self._feed_guarded(data, replies)
        if fault is not None and not session.closing and not self._stalled:
            replies.append(error(f"ERR {fault}"))
            session.server.protocol_errors += 1
            session.closing = True
        self._parser.authenticated = session.authenticated
        return replies[0] if len(replies) == 1 else b"".join(replies)

    def _feed_guarded(self, data: bytes, replies: list[bytes]) -> str | None:
        """Run one request at a time, so that each is held to the limits of the state that the one before left."""
        self._parser.feed(data)
        try:
            for request in self._parser.requests():
                self._run([request], replies)
                self._parser.authenticated = self._session.authenticated
                if self._session.closing:
                    break
        except RequestError as fault:
            return str(fault)
        return None

    def _run(self, requests: list[list[bytes]], replies: list[bytes]) -> None:
        session = self._session
        add = replies.append
        plain = self._is_plain()
        get, put = session.store.get, session.store.put
        gets = sets = large = 0
        null = NIL2 if session.resp == 2 else NIL3
        for position, request in enumerate(requests):
            # The two commands that most of any cache's traffic consists of, without look-up, call and counting: a quarter of
            # their cost.
            if plain:
                name = request[0]
                if name == b"GET" and len(request) == 2:
                    gets += 1
                    value = get(request[1])
                    if value is None:
                        add(null)
                        continue
                    add(b"$%d\r\n%b\r\n" % (len(value), value))
                    if len(value) > LARGE_REPLY_BYTES:
                        large += len(value)
                        if large > REPLIES_PER_READ_MAX_BYTES:
                            self._stalled = requests[position + 1 :]
                            break
                    continue
                if name == b"SET" and len(request) == 3:
                    sets += 1
                    put(request[1], request[2])
                    add(OK)
                    continue
            reply = self._execute(request)
            if reply is None:
                self._stalled = requests[position:]
                break
            if session.reply_mode == REPLY_ON:
                add(reply)
            elif session.reply_mode == REPLY_SKIP_NEXT:
                session.reply_mode = REPLY_SKIP
            elif session.reply_mode == REPLY_SKIP:
                session.reply_mode = REPLY_ON
            if session.closing:
                break
            if len(reply) > LARGE_REPLY_BYTES:
                large += len(reply)
                if large > REPLIES_PER_READ_MAX_BYTES:
                    self._stalled = requests[position + 1 :]
                    break
            plain = self._is_plain()
            get, put = session.store.get, session.store.put
            null = NIL2 if session.resp == 2 else NIL3
        self._get.calls += gets
        self._set.calls += sets
        session.commands += len(requests)
        session.server.commands_processed += len(requests)
        if gets or sets:
            session.last_command = "get" if gets else "set"

    def _is_plain(self) -> bool:
        """Say whether nothing but the command itself decides about GET and SET now."""
        session = self._session
        return (
            session.authenticated
            and session.reply_mode == REPLY_ON
            and not session.keyspace.maxmemory
            and not session.store.maxmemory
            and not session.no_touch
            and not session.server.pause_until_ms
        )

    def _execute(self, request: list[bytes]) -> bytes | None:
        """Run one command; None where a pause holds it back."""
        session = self._session
        entry = self._table.by_spelling.get(request[0]) or self._table.find(request[0])
        if entry is None:
            return error(_unknown(request))
        if entry.subcommands and len(request) > 1:
            sub = entry.subcommands.get(request[1].lower())
            if sub is None:
                entry.rejections += 1
                shown = request[1][:_SHOWN_ARGUMENTS_BYTES].decode("utf-8", "surrogateescape")
                return error(f"ERR unknown subcommand '{shown}'. Try {entry.name.upper()} HELP.")
            entry = sub
        if not entry.min_arguments <= len(request) <= entry.max_arguments:
            entry.rejections += 1
            return error(f"ERR wrong number of arguments for '{entry.name}' command")
        if not session.authenticated and not entry.before_auth:
            entry.rejections += 1
            return error("NOAUTH Authentication required.")
        if entry.denies_oom and not session.keyspace.make_room(session.store):
            entry.rejections += 1
            return error("OOM command not allowed when used memory > 'maxmemory'.")
        if session.server.pause_until_ms and self._is_paused(entry):
            return None
        session.last_command = entry.name
        entry.calls += 1
        try:
            return entry.function(session, request)
        except CommandError as refusal:
            entry.failures += 1
            return error(refusal.line)
        except Exception as failure:  # noqa: BLE001 - one command's bug must not take the connection or the node along
            entry.failures += 1
            session.server.report_failure(entry.name, failure)
            return error("ERR internal error, see the node's log")

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
