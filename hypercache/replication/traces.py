"""Which keys traced requests have changed, until their changes are on their way to the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.limits import TRACED_KEY_MAX_BYTES, TRACED_KEYS_MAX_COUNT

if TYPE_CHECKING:
    from hypercache.wire.extension import Trace


class TracedKeys:
    """Keys by store, each with the trace of its last traced change, bounded: a further one takes the place of the oldest.

    A key over `TRACED_KEY_MAX_BYTES` is not remembered: its change travels untraced.

    Args:
        limit: how many keys to hold.

    Attributes:
        held: (store, key) to trace, the oldest first; mostly empty, which a look at it costs nothing.
    """

    __slots__ = ("_limit", "held")

    def __init__(self, limit: int = TRACED_KEYS_MAX_COUNT) -> None:
        self._limit = limit
        self.held: dict[tuple[str, bytes], Trace] = {}

    def add(self, store: str, key: bytes, trace: Trace) -> None:
        """Remember that a request changed a key."""
        held = self.held
        held.pop((store, key), None)
        if len(key) > TRACED_KEY_MAX_BYTES:
            return
        if len(held) >= self._limit:
            del held[next(iter(held))]
        held[store, key] = trace

    def forget_store(self, store: str) -> None:
        """Forget the keys of a store: it was flushed."""
        for each in [each for each in self.held if each[0] == store]:
            del self.held[each]

    def take(self) -> dict[tuple[str, bytes], Trace]:
        """Return everything and forget it."""
        taken, self.held = self.held, {}
        return taken
