"""Control planes to begin a test with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.control.apply import Applied, apply
from hypercache.control.commands import AddMember, Code, FoundCluster
from hypercache.control.state import ControlState

if TYPE_CHECKING:
    from hypercache.control.commands import Command

CLUSTER = 77


class Plane:
    """A control plane, entry by entry."""

    def __init__(self, state: ControlState | None = None) -> None:
        self.state = state or ControlState()
        self.index = 0
        self.when_ms = 1_800_000_000_000

    def apply(self, command: Command) -> Applied:
        self.index += 1
        self.when_ms += 1000
        applied = apply(self.state, command, self.index, self.when_ms)
        self.state = applied.state
        return applied

    def code(self, command: Command) -> Code:
        """Apply a command; return what became of it, which changed nothing if it was refused."""
        before = self.state
        outcome = self.apply(command).outcome
        assert outcome.index == self.index
        assert outcome.version == self.state.version
        if not outcome.ok and outcome.code is not Code.REJOIN:
            assert self.state is before
            assert outcome.text
        return outcome.code


def node(node_id: int, **fields: object) -> AddMember:
    given: dict[str, object] = {"address": f"10.0.0.{node_id}:7379", "name": f"n{node_id}", "boot": 1, **fields}
    return AddMember(node_id, **given)  # type: ignore[arg-type]


def founded(count: int = 1) -> Plane:
    """Return the control plane of a cluster of so many nodes."""
    plane = Plane()
    assert plane.code(FoundCluster(CLUSTER, node(1))) is Code.OK
    for node_id in range(2, count + 1):
        assert plane.code(node(node_id)) is Code.OK
    return plane
