"""Which term each entry of the log has, without the entries."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercache.wire.messages import LogEntry


class Terms:
    """The terms of a log, as runs: they change seldom.

    Args:
        index: what the log follows.
        term: that entry's term.

    Attributes:
        last: the index of the last entry.
    """

    __slots__ = ("_starts", "_terms", "last")

    def __init__(self, index: int, term: int) -> None:
        self._starts = [index]
        self._terms = [term]
        self.last = index

    def copy(self) -> Terms:
        """Return one that changes by itself."""
        other = Terms.__new__(Terms)
        other._starts, other._terms, other.last = self._starts.copy(), self._terms.copy(), self.last
        return other

    @property
    def first(self) -> int:
        """The lowest index whose term is known."""
        return self._starts[0]

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._terms[-1]

    def at(self, index: int) -> int:
        """Return the term of an entry; -1 where it is not known."""
        if not self._starts[0] <= index <= self.last:
            return -1
        return self._terms[bisect_right(self._starts, index) - 1]

    def replace(self, first_index: int, entries: Sequence[LogEntry]) -> None:
        """Take entries in place of all that is there from ``first_index`` on, which is known or follows the last."""
        assert self._starts[0] < first_index <= self.last + 1, "entries that do not follow the log"
        starts, terms = self._starts, self._terms
        while starts[-1] >= first_index:
            starts.pop()
            terms.pop()
        self.last = first_index - 1 + len(entries)
        if entries[0].term == entries[-1].term == terms[-1]:
            return
        for index, entry in enumerate(entries, first_index):
            if entry.term != terms[-1]:
                starts.append(index)
                terms.append(entry.term)

    def forget(self, index: int) -> None:
        """Forget the terms before an index."""
        if self._starts[0] < index <= self.last:
            at = bisect_right(self._starts, index) - 1
            del self._starts[:at], self._terms[:at]
            self._starts[0] = index
