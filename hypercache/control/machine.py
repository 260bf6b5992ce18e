"""The control plane of one node: the state as of the last entry that it applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.control.apply import apply_configuration, apply_encoded
from hypercache.control.commands import encode_outcome
from hypercache.control.state import ControlState, decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Callable


class ControlMachine:
    """Holds the control plane's state; it changes by entries and by snapshots alone.

    Args:
        state: what it begins with.

    Attributes:
        state: the state now.
        changed: called with the state before and the one behind each change.
    """

    __slots__ = ("_forgotten", "changed", "state")

    def __init__(self, state: ControlState | None = None) -> None:
        self.state = state or ControlState()
        self.changed: Callable[[ControlState, ControlState], None] = _nobody
        self._forgotten: list[int] = []

    def apply(self, index: int, when_ms: int, command: bytes) -> bytes:
        """Apply an entry; return its answer.

        Args:
            index: its place in the log.
            when_ms: when the leader proposed it, Unix milliseconds.
            command: what it holds behind the prefix (`hypercache.control.entries`).
        """
        applied = apply_encoded(self.state, command, index, when_ms)
        self._forgotten.extend(applied.forget)
        self._become(applied.state)
        return encode_outcome(applied.outcome)

    def membership_changed(self, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        """Take note of a committed configuration that is not joint."""
        self._become(apply_configuration(self.state, voters, learners))

    def knows(self, client_id: int) -> bool:
        """Whether a node's proposals are applied: it is a member, or nobody is one yet."""
        members = self.state.members
        return client_id in members or not members

    def take_forgotten(self) -> tuple[int, ...]:
        """Return the clients whose answers must be forgotten since the last call, behind the entry that was applied last."""
        forgotten = tuple(self._forgotten)
        self._forgotten.clear()
        return forgotten

    def freeze(self) -> bytes:
        """Return the state for a snapshot."""
        return encode_state(self.state)

    def adopt(self, state: ControlState) -> None:
        """Become what a snapshot says (`hypercache.control.state.decode_state`)."""
        self._forgotten.clear()
        self._become(state)

    @staticmethod
    def load(data: bytes) -> ControlState:
        """Return the state that a snapshot holds, for `adopt`.

        Raises:
            MalformedMessageError: it is damaged.
        """
        return decode_state(data)

    def _become(self, state: ControlState) -> None:
        before, self.state = self.state, state
        if state is not before:
            self.changed(before, state)


def _nobody(before: ControlState, behind: ControlState) -> None:
    """Nobody wants to know."""
