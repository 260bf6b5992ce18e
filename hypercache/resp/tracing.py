"""Which commands are traced: a share of all by chance, and the one behind HYPERCACHE.TRACE."""

from __future__ import annotations

from math import log, log1p
from typing import TYPE_CHECKING, Final, Protocol

from hypercache.errors import CommandError
from hypercache.resp.replies import OK
from hypercache.resp.table import command

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from hypercache.resp.session import Session
    from hypercache.resp.table import Command

_NEVER: Final = 1 << 62

UNTRACED: Final = object()
"""What a session holds in the place of a trace when the client wants its next command not traced."""


class Sampler:
    """Picks a share of the commands by chance, each with the same probability.

    How many are left out until the next one is drawn once a pick, so that what is not picked costs a subtraction a read.

    Args:
        share: above 0, at most 1.
        rng: draws.
    """

    __slots__ = ("_left", "_rng", "_share")

    def __init__(self, share: float, rng: random.Random) -> None:
        self._share = share
        self._rng = rng
        self._left = self._draw()

    def due(self, count: int) -> bool:
        """Say whether one of the next commands is picked: then each must be asked for; else they are done with."""
        if self._left < count:
            return True
        self._left -= count
        return False

    def pick(self) -> bool:
        """Say whether the next command is picked."""
        if self._left:
            self._left -= 1
            return False
        self._left = self._draw()
        return True

    def _draw(self) -> int:
        # The number of failures before a success is distributed geometrically.
        if self._share >= 1:
            return 0
        return int(min(log(1 - self._rng.random()) / log1p(-self._share), _NEVER))


class CommandTracer(Protocol):
    """What the door needs of a node's tracing; `hypercache.tracing.Tracer` is the one. A trace is its own affair."""

    @property
    def sampler(self) -> Sampler | None:
        """Who picks commands; None where none is to be traced unasked."""
        ...

    def root(self) -> object:
        """Return a new trace."""
        ...

    def accept(self, traceparent: bytes) -> object | None:
        """Return a trace under a client's span; None where the client does not record it.

        Raises:
            CommandError: it is no traceparent.
        """
        ...

    def label(self, trace: object) -> str:
        """Return how an error text names a trace."""
        ...

    def execute(
        self,
        trace: object,
        entry: Command | None,
        session: Session,
        request: list[bytes],
        run: Callable[[list[bytes]], bytes | None],
        since_ms: int = 0,
    ) -> bytes | None:
        """Return what ``run(request)`` does, and record it; None, and no record, where the command is held back.

        It began at ``since_ms``, Unix milliseconds; 0 for now.
        """
        ...


@command(
    "hypercache.trace",
    arity=2,
    flags="noscript loading stale fast",
    group="connection",
    since="7.0.0",
    summary="Traces the connection's next command under the caller's span.",
)
def trace(session: Session, args: list[bytes]) -> bytes:
    """Take a W3C traceparent for the connection's next command; ``OFF`` takes it back."""
    if args[1].upper() == b"OFF":
        session.trace = None
        return OK
    tracer = session.server.tracer
    if tracer is None:
        raise CommandError("ERR tracing is not available here")
    session.trace = tracer.accept(args[1]) or UNTRACED
    return OK
