"""Everything of one read in, everything to write out."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from hypercache.limits import LARGE_REPLY_BYTES, REPLIES_PER_READ_MAX_BYTES
from hypercache.resp.awaiting import Run
from hypercache.resp.executing import INTERNAL_ERROR, OUT_OF_MEMORY, Executor
from hypercache.resp.parser import RequestError
from hypercache.resp.replies import NIL2, NIL3, OK, error
from hypercache.resp.session import REPLY_ON, REPLY_SKIP, REPLY_SKIP_NEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypercache.resp.contracts import StoreLike
    from hypercache.resp.parser import RequestParser
    from hypercache.resp.session import Session
    from hypercache.resp.table import CommandTable

    _Binding = tuple[
        bool,
        Callable[[list[bytes]], bytes | None],
        Callable[[bytes], bytes | None],
        Callable[[bytes, bytes], None],
        Callable[[StoreLike], bool] | None,
        bytes,
    ]

_SETS: Final = (b"SET", b"set")
_HEADERS_COUNT: Final = 1024
_HEADERS: Final = tuple(b"$%d\r\n" % size for size in range(_HEADERS_COUNT))


def _nobody() -> None:
    """Nobody waits for replies that come later."""


class Engine(Executor):
    """Runs the commands of one connection.

    One call takes one read: at most as many commands as fit in it, so that no connection holds the loop for longer than that.

    Args:
        session: the connection's state.
        table: the node's commands.
        parser: the connection's parser.
        on_ready: called when the replies came that commands were waiting for; `feed` with nothing returns them.
    """

    __slots__ = ("_awaited", "_fault", "_get", "_on_ready", "_parser", "_set", "_stalled", "_unread")

    def __init__(
        self, session: Session, table: CommandTable, parser: RequestParser, on_ready: Callable[[], None] = _nobody
    ) -> None:
        super().__init__(session, table)
        self._parser = parser
        self._get = table.commands["get"]
        self._set = table.commands["set"]
        self._on_ready = on_ready
        # While CLIENT PAUSE holds a command back, or one's reply comes later, or the replies so far are large enough for one
        # write, the rest waits here; the fault that ended the parsing is answered behind it.
        self._stalled: list[list[bytes]] = []
        self._unread: list[bytes] = []
        self._fault: str | None = None
        # The run at the head of what waits whose replies are to come.
        self._awaited: Run | None = None
        parser.authenticated = session.authenticated

    @property
    def stalled(self) -> bool:
        """Whether commands wait: for a pause to end, for replies, or for large ones to go out; `feed` with nothing tries again."""
        return bool(self._stalled)

    @property
    def waiting(self) -> bool:
        """Whether the commands that wait do so for replies that come later: ``on_ready`` is called then."""
        return self._awaited is not None and not self._awaited.answered

    @property
    def behind(self) -> bool:
        """Whether something was read while commands waited."""
        return bool(self._unread)

    def finish(self) -> None:
        """Run nothing more but what waits for its replies already."""
        if self._awaited is not None:
            del self._stalled[len(self._awaited.entries) :]
            self._unread = []

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
            if self._awaited is not None:
                if not self._settle(replies):
                    return b""
                if not (self._stalled or self._unread or self._fault or self._parser.buffered_bytes):
                    return replies[0] if len(replies) == 1 else b"".join(replies)
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
                    if self._sampler is not None:
                        self._due = self._sampler.due(len(requests))
                    if session.store.log is None or not self._hand_over_sets(requests):
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
                if self._sampler is not None:
                    self._due = self._sampler.due(1)
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
                                    replies.append(self._refuse(self._set, OUT_OF_MEMORY))
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
                        self._hand_over()
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
                replies.append(INTERNAL_ERROR)
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
        log = store.log
        watched = self._due or session.trace is not None
        plain = (
            session.authenticated
            and session.reply_mode == REPLY_ON
            and not watched
            and not session.no_touch
            and not session.server.pause_until_ms
            and log is None
        )
        execute = self._execute_watched if watched else self._execute if log is None else self._execute_logged
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

    # Replies that come later

    def _hand_over(self) -> None:
        """Have the command at the head of what waits answered later, with those of its kind that follow it directly."""
        session = self._session
        if session.later is not None:
            start, session.later = session.later, None
            entry = self._table.resolve(self._stalled[0])
            assert entry is not None
            run = self._awaited = Run([entry], None, writes=True, trace=session.trace, since_ms=session.last_ms)
            session.trace = None
            start(lambda reply: self._answered(run, [reply]))
            return
        head, self._head = self._head, None
        log = session.store.log
        if head is None or log is None:
            return
        writes = "write" in head.flags
        entries = [head]
        if not self._due and session.trace is None:
            # What pauses none of a kind pauses no other of it.
            kind = "write" if writes else "readonly"
            for request in islice(self._stalled, 1, None):
                entry = self._data_command(request)
                if entry is None or kind not in entry.flags or log.refuses(entry, request) is not None:
                    break
                if entry.denies_oom and not session.keyspace.make_room(session.store):
                    break
                entries.append(entry)
        run = self._awaited = Run(entries, log, writes=writes, trace=session.trace, since_ms=session.last_ms)
        if writes:
            session.trace = None
            for entry in entries:
                entry.calls += 1
            log.write(session.resp, self._stalled[: len(entries)], partial(self._answered, run))
        else:
            log.read(partial(self._answered, run))

    def _hand_over_sets(self, requests: list[list[bytes]]) -> bool:
        """Do as `_hand_over` with a read of nothing but plain SETs, where nothing but themselves decides about them now.

        They are most of what is written; without look-up and checks of each they cost half.
        """
        session, entry = self._session, self._set
        store = session.store
        log = store.log
        if self._due or session.trace is not None or session.server.pause_until_ms:
            return False
        if log is None or store.maxmemory or session.keyspace.maxmemory:
            return False
        refuses = log.refuses
        for request in requests:
            if len(request) != 3 or request[0] not in _SETS or refuses(entry, request) is not None:
                return False
        count = len(requests)
        self._stalled = requests
        run = self._awaited = Run([entry] * count, log, writes=True, trace=None, since_ms=session.last_ms)
        entry.calls += count
        log.write(session.resp, requests, partial(self._answered, run))
        return True

    def _answered(self, run: Run, outcome: Sequence[bytes] | str | None) -> None:
        run.outcome = outcome
        run.answered = True
        if self._awaited is run:
            self._on_ready()

    def _settle(self, replies: list[bytes]) -> bool:
        """Take the replies to the run at the head of what waits; False where they are yet to come."""
        run = self._awaited
        assert run is not None
        if not run.answered:
            return False
        self._awaited = None
        session, server = self._session, self._session.server
        outcome, count = run.outcome, len(run.entries)
        if outcome is None:
            # A store that was dropped meanwhile has another log, which is to be asked again.
            if session.store.log is run.log:
                self._cleared = count
                self._since_ms = run.since_ms
            return True
        if isinstance(outcome, str):
            outcome = [error(outcome)] * count
        if run.trace is None and session.reply_mode == REPLY_ON and outcome.count(OK) == count:
            replies.append(OK if count == 1 else OK * count)
            outcome = ()
        for entry, request, reply in zip(run.entries, self._stalled, outcome, strict=False):
            if reply.startswith(b"-"):
                entry.failures += 1
                server.error_replies += 1
            if run.trace is not None and server.tracer is not None:
                server.tracer.execute(run.trace, entry, session, request, partial(_same, reply), run.since_ms)
            self._add(reply, replies)
        del self._stalled[:count]
        session.commands += count
        server.commands_processed += count
        session.last_command = run.entries[-1].name
        return True


def _same(reply: bytes, request: list[bytes]) -> bytes:
    """Return the reply that a request got."""
    return reply
