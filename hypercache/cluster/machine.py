"""What the log is applied to: the control plane, and the stores of level raft."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger

from hypercache.cluster.pieces import frame, frames
from hypercache.control.entries import EntryKind, decided, split_entry
from hypercache.control.machine import ControlMachine
from hypercache.errors import MalformedMessageError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from hypercache.cluster.raft_stores import LoadedStores, RaftStores
    from hypercache.control.state import ControlState

_log = Logger()


class LoadedMachine(msgspec.Struct):
    """A snapshot that was read."""

    control: ControlState
    stores: LoadedStores


class ClusterMachine:
    """The state machine of a node (`hypercache.consensus.contracts.StateMachine`).

    Args:
        control: the control plane.
        stores: the stores of level raft.
        wall: returns Unix seconds.
        rng: the leader's luck.

    Attributes:
        control, stores: as given.
        applying_index: the entry of the control plane that is being applied; 0 for none.
        on_control: called with the control plane's state before and the one behind each change.
    """

    def __init__(self, control: ControlMachine, stores: RaftStores, wall: Callable[[], float], rng: random.Random) -> None:
        self.control = control
        self.stores = stores
        self.applying_index = 0
        self.on_control: Callable[[ControlState, ControlState], None] = _nobody
        self._wall = wall
        self._rng = rng
        control.changed = self._changed
        stores.define(control.state.stores)

    def prepare(self, data: bytes) -> bytes:
        """Set time and luck; the leader alone calls it."""
        return decided(data, max(int(self._wall() * 1000), self.stores.now_ms), self._rng.getrandbits(64))

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        """Apply a committed proposal; return its answer, empty for one that cannot be read."""
        try:
            when_ms, chance, kind, rest = split_entry(data)
        except MalformedMessageError as fault:
            _log.error("entry {index}: {fault}", index=index, fault=fault)
            return b""
        if kind == EntryKind.STORES:
            return self.stores.apply(when_ms, chance, rest)
        self.stores.advance(when_ms)
        if kind == EntryKind.CONTROL:
            self.applying_index = index
            answer = self.control.apply(index, self.stores.now_ms, rest)
            self.applying_index = 0
            return answer
        _log.error("entry {index} is of kind {kind}, which this release does not know", index=index, kind=kind)
        return b""

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        """Take note of a committed configuration that is not joint."""
        self.control.membership_changed(voters, learners)

    def knows(self, client_id: int) -> bool:
        """Whether a client's proposals are applied: it is a member, or nobody is one yet."""
        return self.control.knows(client_id)

    def take_forgotten(self) -> tuple[int, ...]:
        """Return the clients whose answers are to be forgotten since the last call."""
        return self.control.take_forgotten()

    # Snapshots

    def freeze(self) -> Iterable[bytes]:
        """Return the state as of now in pieces, to be read later and elsewhere."""
        return chain((frame(self.control.freeze()),), self.stores.freeze())

    def load(self, stream: Iterable[bytes]) -> LoadedMachine:
        """Return what a snapshot's pieces say, for `adopt`; it touches nothing that is in use.

        Raises:
            MalformedMessageError: they are damaged.
        """
        payloads = frames(stream)
        control = ControlMachine.load(next(payloads, b""))
        return LoadedMachine(control, self.stores.load_frames(payloads, control.stores))

    def adopt(self, loaded: LoadedMachine) -> None:
        """Become what was loaded."""
        self.stores.adopt(loaded.stores)
        self.control.adopt(loaded.control)

    def _changed(self, before: ControlState, behind: ControlState) -> None:
        if before.stores is not behind.stores:
            self.stores.define(behind.stores)
        self.on_control(before, behind)


def _nobody(before: ControlState, behind: ControlState) -> None:
    """Nobody wants to know."""
