"""Linearizable reads of this node: each waits for a read index, and until that is applied here (dissertation, section 6.4)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
from twisted.internet.defer import Deferred, fail

from hypercache.errors import BusyError, NotLeaderError
from hypercache.limits import RAFT_READS_MAX_COUNT
from hypercache.raft.sessions import sequence_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.raft import Raft, ReadState


class _Waiting(msgspec.Struct):
    """A read without its index, and when it is given up, in ticks."""

    ready: Deferred[None]
    deadline: int


class Reads:
    """The reads of a node.

    All that come while a round is on its way share the next one.

    Args:
        raft: the core.
        boot: counts the node's starts: an answer to an earlier one confirms nothing.
        patience: ticks after which a read is given up.
        resend: ticks after which a round counts as lost.
    """

    def __init__(self, raft: Raft, boot: int, *, patience: int, resend: int) -> None:
        self._raft = raft
        self._patience = patience
        self._resend = resend
        self._ticks = 0
        self._contexts = sequence_of(boot, 0)
        self._count = 0
        # The round on its way: its context (0 for none), when it counts as lost, and who waits for it.
        self._round = 0
        self._lost = 0
        self._asked: list[_Waiting] = []
        self._gathered: list[_Waiting] = []
        # A round was refused: who is asked next knows no better before time has passed.
        self._refused = False
        # Reads that have an index, which is not applied yet.
        self._indexed: deque[tuple[int, list[_Waiting]]] = deque()

    def read(self) -> Deferred[None]:
        """Wait until what this node has applied may be read.

        Returns:
            Fails with a BusyError or a NotLeaderError.
        """
        if self._count >= RAFT_READS_MAX_COUNT:
            return fail(BusyError("too many reads wait"))
        waiting = _Waiting(Deferred(), self._ticks + self._patience)
        self._gathered.append(waiting)
        self._count += 1
        return waiting.ready

    @property
    def wanted(self) -> bool:
        """Whether a round should begin."""
        return bool(self._gathered) and not self._round and not self._refused

    def begin(self) -> None:
        """Begin a round with all that wait, where somebody leads."""
        self._contexts += 1
        try:
            self._raft.read_index(self._contexts)
        except (NotLeaderError, BusyError):
            return
        self._round = self._contexts
        self._lost = self._ticks + self._resend
        self._asked, self._gathered = self._gathered, []

    def indexed(self, states: Iterable[ReadState]) -> None:
        """Take the indexes of rounds."""
        for state in states:
            if state.context != self._round:
                continue
            if state.index:
                self._indexed.append((state.index, self._asked))
                self._asked = []
            else:
                self._refused = True
            self._ask_again()

    def applied(self, index: int) -> None:
        """Let the reads go whose index is applied."""
        indexed = self._indexed
        while indexed and indexed[0][0] <= index:
            waiting = indexed.popleft()[1]
            self._count -= len(waiting)
            for each in waiting:
                each.ready.callback(None)

    def tick(self) -> None:
        """Let a tick pass: give up what waits for too long, and rounds that are lost."""
        self._ticks += 1
        self._refused = False
        if self._round and self._lost <= self._ticks:
            self._ask_again()
        if self._gathered and self._gathered[0].deadline <= self._ticks:
            late = [each for each in self._gathered if each.deadline <= self._ticks]
            self._gathered = self._gathered[len(late) :]
            self._give_up(late)
        if self._indexed and self._indexed[0][1][0].deadline <= self._ticks:
            self._give_up(self._indexed.popleft()[1])

    def leader_changed(self) -> None:
        """Ask the new leader."""
        self._refused = False
        if self._round:
            self._ask_again()

    def stop(self) -> None:
        """Give up all of them."""
        self._ask_again()
        late, self._gathered = self._gathered, []
        self._give_up(late)
        while self._indexed:
            self._give_up(self._indexed.popleft()[1])

    def _ask_again(self) -> None:
        self._round = 0
        self._gathered = self._asked + self._gathered
        self._asked = []

    def _give_up(self, late: list[_Waiting]) -> None:
        self._count -= len(late)
        for each in late:
            each.ready.errback(NotLeaderError(0))
