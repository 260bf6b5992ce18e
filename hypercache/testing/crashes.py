"""Where a node can be killed: every point that its disk, its journal, its network and its state machine pass has a name.

A crash is an exception that no code catches on purpose, raised at the point; what runs above it is dead already, whatever it does
with the exception: its disk refuses, its messages go nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class SimulatedCrash(BaseException):
    """The process of a node ends here.

    Args:
        point: where.
    """

    def __init__(self, point: str) -> None:
        super().__init__(point)
        self.point = point


class CrashPoints:
    """The points that one node passes, and which of them kills it.

    Attributes:
        passed: how often each point was passed, by name; only kept after `count`.
    """

    __slots__ = ("_countdown", "_dead", "_name", "_struck", "passed")

    def __init__(self) -> None:
        self.passed: dict[str, int] | None = None
        self._countdown = 0
        self._dead = False
        self._name: str | None = None
        self._struck: Callable[[str], None] | None = None

    def count(self) -> dict[str, int]:
        """Count what is passed from now on; return the counts, which grow."""
        self.passed = {}
        return self.passed

    def strike(self, after: int, name: str | None = None, struck: Callable[[str], None] | None = None) -> None:
        """Kill the node later.

        Args:
            after: the how-manieth point from now it is, 1 for the next.
            name: count this one alone; None for all.
            struck: called first, with the point's name.
        """
        self._countdown = after
        self._name = name
        self._struck = struck

    def spare(self) -> None:
        """Take a strike back, or forget one: the node may live."""
        self._countdown = 0
        self._dead = False

    def reach(self, name: str) -> None:
        """Pass a point.

        Raises:
            SimulatedCrash: it is the one, or comes behind it: what catches the exception does nothing more.
        """
        if self.passed is not None:
            self.passed[name] = self.passed.get(name, 0) + 1
        if self._dead:
            raise SimulatedCrash(name)
        if self._countdown and (self._name is None or self._name == name):
            self._countdown -= 1
            if not self._countdown:
                self._dead = True
                if self._struck is not None:
                    self._struck(name)
                raise SimulatedCrash(name)
