"""What a node's log holds, as seen from outside: told by what is handed to its storage, never by asking the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.raft import HardState, SnapshotMeta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.raft import Ready
    from hypercache.wire.messages import LogEntry

COVERED: Final = -1
"""The term of an entry that a snapshot covers."""
MISSING: Final = -2
"""The term of an entry that is not there."""


class Shadow:
    """Term and vote, and the terms of the entries behind a snapshot.

    Attributes:
        state: term, vote and commit index.
        base, base_term: the snapshot's last entry.
        terms: of the entries behind it.
    """

    __slots__ = ("base", "base_term", "state", "terms")

    def __init__(self, state: HardState | None, snapshot: SnapshotMeta, entries: Iterable[LogEntry]) -> None:
        self.state = state or HardState()
        self.base = snapshot.index
        self.base_term = snapshot.term
        self.terms = [entry.term for entry in entries]

    def copy(self) -> Shadow:
        """Return another one that holds the same."""
        copied = Shadow(self.state, SnapshotMeta(self.base, self.base_term), ())
        copied.terms = self.terms.copy()
        return copied

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self.base + len(self.terms)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self.terms[-1] if self.terms else self.base_term

    def term_of(self, index: int) -> int:
        """Return an entry's term, `COVERED` or `MISSING`."""
        at = index - self.base
        if at > 0:
            return self.terms[at - 1] if at <= len(self.terms) else MISSING
        return COVERED if at else self.base_term

    def holds(self, index: int, term: int) -> bool:
        """Whether an entry is there, or in the snapshot."""
        return self.term_of(index) in (term, COVERED)

    def take(self, ready: Ready) -> None:
        """Become what a Ready wants written."""
        if ready.hard_state is not None:
            self.state = ready.hard_state
        if ready.snapshot is not None:
            self.base, self.base_term, self.terms = ready.snapshot.index, ready.snapshot.term, []
        if ready.entries:
            del self.terms[ready.first_index - self.base - 1 :]
            self.terms += [entry.term for entry in ready.entries]

    def first_conflict(self, other: Shadow) -> int:
        """Return the first index behind both snapshots at which the two differ, or one ends; the shorter one's end counts."""
        index = max(self.base, other.base) + 1
        last = min(self.last, other.last)
        while index <= last and self.terms[index - self.base - 1] == other.terms[index - other.base - 1]:
            index += 1
        return index
