"""Answers leave in the order of their requests, also where a later one is ready first (wire.md, section 2)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Turn(msgspec.Struct):
    """The place of one answer in the row; ``frame`` is None until it is ready, and empty for no answer."""

    frame: bytes | None = None


class Turns:
    """The row of answers that wait for one that is not ready.

    Args:
        put: takes each frame when its turn has come.
    """

    __slots__ = ("_put", "row")

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self.row: deque[Turn] = deque()

    def __len__(self) -> int:
        return len(self.row)

    def take(self, frame: bytes) -> None:
        """Take an answer that is ready."""
        if self.row:
            self.row.append(Turn(frame))
        else:
            self._put(frame)

    def hold(self) -> Turn:
        """Return the place of an answer that comes later."""
        turn = Turn()
        self.row.append(turn)
        return turn

    def fill(self, turn: Turn, frame: bytes) -> None:
        """Take the answer of a place, and let go what waited for it."""
        turn.frame = frame
        row = self.row
        while row and row[0].frame is not None:
            ready = row.popleft().frame
            if ready:
                self._put(ready)
