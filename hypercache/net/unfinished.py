"""The frame that has begun to arrive: it must be whole in time, and all of a node's together have a budget (wire.md, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.limits import FRAME_TIMEOUT_SECONDS_PER_MIB, MIB, RECEIVE_BUDGET_BYTES

if TYPE_CHECKING:
    from hypercache.wire import Decoder


class ReceiveBudget:
    """What the unfinished frames of all links may take together.

    Args:
        limit: in bytes.

    Attributes:
        held: what they take now, in bytes.
    """

    def __init__(self, limit: int = RECEIVE_BUDGET_BYTES) -> None:
        self.limit = limit
        self.held = 0


class Unfinished:
    """The unfinished frame of one link.

    Args:
        decoder: holds it.
        budget: what all links share.
        timeout: how long a small frame may take, in seconds; a large one has a second a MiB more.
    """

    __slots__ = ("_begun", "_budget", "_decoder", "_held", "_timeout", "_whole_header")

    def __init__(self, decoder: Decoder, budget: ReceiveBudget, timeout: float) -> None:
        self._decoder = decoder
        self._budget = budget
        self._timeout = timeout
        self._held = 0
        self._begun = 0.0
        self._whole_header = False

    @property
    def held(self) -> int:
        """How many bytes are held."""
        return self._held

    def note(self, now: float, *, progress: bool) -> None:
        """Look at the decoder after a read.

        Args:
            now: the reactor's time, in seconds.
            progress: the read completed something: what is unfinished now is not what was unfinished before.
        """
        held = self._decoder.pending_bytes
        self._budget.held += held - self._held
        has_header = self._decoder.awaited_bytes > 0
        # The time of a frame counts from its header; until that is whole, from its first byte.
        if progress or not self._held or has_header > self._whole_header:
            self._begun = now
        self._whole_header = has_header
        self._held = held

    def exceeds_budget(self) -> bool:
        """Say whether all unfinished frames are too much, and this one is among them."""
        return self._held > 0 and self._budget.held > self._budget.limit

    def is_late(self, now: float) -> bool:
        """Say whether the frame takes too long."""
        if not self._held:
            return False
        size = max(self._decoder.awaited_bytes, self._held)
        return now > self._begun + self._timeout + size / MIB * FRAME_TIMEOUT_SECONDS_PER_MIB

    def release(self) -> None:
        """Give back what the frame took: it never becomes whole."""
        self._budget.held -= self._held
        self._held = 0
