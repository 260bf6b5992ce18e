"""The node's tracing: contexts made and taken, spans around what is handled, what they lead to remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from hypercache.errors import CommandError, ConfigurationError
from hypercache.replication.traces import TracedKeys
from hypercache.resp.commands import key_positions
from hypercache.resp.tracing import Sampler
from hypercache.tracing.marking import handling
from hypercache.tracing.spans import Span
from hypercache.wire import tracing
from hypercache.wire.extension import TraceLoopError
from hypercache.wire.messages import GenericError, ReplicateData

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from hypercache.config import TracingSettings
    from hypercache.net.context import PeerContext
    from hypercache.resp.session import Session
    from hypercache.resp.table import Command
    from hypercache.tracing.spans import Exporter
    from hypercache.wire import Message
    from hypercache.wire.extension import Trace

_NS_PER_SECOND: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_DEFAULT_STORE: Final = "default"


class Tracer:
    """Traces what one node handles.

    Args:
        settings: which share of the commands is traced.
        rng: draws the ids and the sample.
        wall: returns Unix seconds.
        node_id: this node's id.
        exporter: where spans go; None for nowhere: contexts then still travel, and mark log lines and error texts.

    Attributes:
        sampler: picks commands; None where none is traced unasked.
        replicates: whether changes are sent to peers, so that it pays to remember which were traced.
        changed: the keys that traced requests have changed and whose changes are not on their way yet.
        loops: traces that came to this node for the second time.

    Raises:
        ConfigurationError: the share is none.
    """

    def __init__(
        self,
        settings: TracingSettings,
        *,
        rng: random.Random,
        wall: Callable[[], float],
        node_id: int,
        exporter: Exporter | None = None,
    ) -> None:
        if not 0 <= settings.sample <= 1:
            raise ConfigurationError(f"tracing.sample = {settings.sample:g} is no share; it must be from 0 to 1")
        self.sampler = Sampler(settings.sample, rng) if settings.sample else None
        self.replicates = False
        self.changed = TracedKeys()
        self.loops = 0
        self._rng = rng
        self._wall = wall
        self._node_id = node_id
        self._exporter = exporter

    # Contexts

    def root(self) -> Trace:
        """Return the context of a request that begins a trace here."""
        return tracing.root(self._rng, self._now_ns())

    def accept(self, traceparent: bytes) -> Trace | None:
        """Return the context of a request under a client's span; None where the client does not record it.

        Args:
            traceparent: W3C's.

        Raises:
            CommandError: it is invalid.
        """
        parent = tracing.parse_traceparent(traceparent.decode("ascii", "replace"))
        if parent is None:
            raise CommandError("ERR invalid traceparent")
        return tracing.root(self._rng, self._now_ns(), parent) if parent.sampled else None

    def child(self, trace: Trace) -> Trace:
        """Return the context of a request that this node sends on behalf of another.

        Args:
            trace: that of the other, a handler's ``context.trace``.

        Raises:
            TraceLoopError: the path would be longer than 16 nodes, or holds this one already.
        """
        return tracing.child(trace, self._node_id, self._rng, self._now_ns())

    def admit(self, trace: Trace) -> None:
        """Refuse a request that has passed this node already.

        Raises:
            TraceLoopError: it has.
        """
        try:
            tracing.check_path(trace, self._node_id)
        except TraceLoopError:
            self.loops += 1
            raise

    def label(self, trace: Any) -> str:
        """Return how log lines and error texts name a traced request."""
        return tracing.label(trace)

    # What is handled

    def execute(
        self,
        trace: Any,
        entry: Command | None,
        session: Session,
        request: list[bytes],
        run: Callable[[list[bytes]], bytes | None],
        since_ms: int = 0,
    ) -> bytes | None:
        """Run a client's command and record it.

        Args:
            trace: its context.
            entry: the command, None for an unknown one.
            session: the connection's.
            request: the command and its arguments.
            run: runs it.
            since_ms: when it began, Unix milliseconds; 0 for now.

        Returns:
            The reply; None where the command is held back, and nothing is recorded.
        """
        store = session.store.name
        start_ns = since_ms * _NS_PER_MS or self._now_ns()
        with handling(trace):
            reply = run(request)
        if reply is None:
            return None
        failed = reply[:1] == b"-"
        if not failed and self.replicates and entry is not None and "write" in entry.flags and entry.keys[0]:
            for at in key_positions(entry, request):
                self.changed.add(store, request[at], trace)
        if self._exporter is not None:
            # Of an unknown command not even the name: it may be anything. Of an error the code: its text may show arguments.
            name = entry.name if entry is not None else "unknown command"
            error = reply[1:].split(None, 1)[0].decode("ascii", "replace") if failed else ""
            self._record(name, trace, start_ns, {"hypercache.store": store}, error)
        return reply

    def serve(self, handle: Callable[[Any, Any], Any], context: PeerContext, message: Message) -> Any:
        """Have a peer's traced message handled, and record it.

        Args:
            handle: the handler's method.
            context: the message's, with its trace.
            message: the message.

        Returns:
            What the handler returns.

        Raises:
            TraceLoopError: the request has passed this node already; nothing was handled.
            Exception: what the handler raises.
        """
        trace = context.trace
        assert trace is not None
        self.admit(trace)
        start_ns = self._now_ns()
        attributes: dict[str, str | int] = {
            "hypercache.message.type": message.TYPE,
            "hypercache.peer": str(context.node_id),
            "network.peer.address": context.link.address,
        }
        name = type(message).__name__
        try:
            with handling(trace):
                answer = handle(context, message)
        except Exception as failure:
            self._record(name, trace, start_ns, attributes, type(failure).__name__)
            raise
        if self.replicates and message.__class__ is ReplicateData and not context.member:
            # What enters the cluster here goes on to the members.
            self.changed.add(message.store or _DEFAULT_STORE, message.key, trace)

        def done(result: Any) -> Any:
            error = ""
            if isinstance(result, Failure):
                error = result.type.__name__ if result.type is not None else "Failure"
            elif isinstance(result, GenericError):
                error = f"0x{result.error_code:04x}"
            elif status := getattr(result, "status", 0):
                error = f"status {status}"
            self._record(name, trace, start_ns, attributes, error)
            return result

        return answer.addBoth(done) if isinstance(answer, Deferred) else done(answer)

    def stop(self) -> Deferred[None]:
        """Fire when the spans are out, or given up."""
        return self._exporter.close() if self._exporter is not None else succeed(None)

    def _now_ns(self) -> int:
        return int(self._wall() * _NS_PER_SECOND)

    def _record(self, name: str, trace: Trace, start_ns: int, attributes: dict[str, str | int], error: str) -> None:
        if self._exporter is None:
            return
        attributes["hypercache.node"] = str(self._node_id)
        attributes["hypercache.hops"] = len(trace.path)
        # The wall clock may be set back meanwhile.
        self._exporter.export(Span(name, trace, start_ns, max(start_ns, self._now_ns()), attributes, error))
