"""The log: entries behind the last compaction, and how far they are committed, applied, durable (Raft paper, figure 2)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from enum import IntEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from hypercache.errors import ConsistencyError, RaftError
from hypercache.raft.configuration import Configuration, decode_configuration
from hypercache.raft.snapshot import SnapshotMeta

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hypercache.wire.messages import LogEntry

ENTRY_OVERHEAD_BYTES: Final = 13
UNKNOWN_TERM: Final = -1

_term_of = attrgetter("term")


class EntryType(IntEnum):
    """What an entry is (wire.md, section 1)."""

    NO_OP = 0
    DATA = 1
    CONFIGURATION = 2


class RaftLog:
    """The entries that a node holds in memory, from ``first_index`` on.

    Args:
        snapshot: what the entries follow.
        entries: what was found on disk behind it; all of it durable.

    Attributes:
        snapshot: the newest snapshot.
        committed: the index up to which entries are known to be committed.
        applied: the index up to which entries were handed to the state machine.
        durable: the index up to which this node's disk holds the log.
        handed: the index up to which entries were handed out to be written.
    """

    __slots__ = (
        "_configurations",
        "_entries",
        "_offset",
        "_offset_term",
        "_pending",
        "_sizes",
        "applied",
        "committed",
        "durable",
        "handed",
        "snapshot",
    )

    def __init__(self, snapshot: SnapshotMeta, entries: Iterable[LogEntry] = ()) -> None:
        self._reset(snapshot)
        self.durable = snapshot.index
        # The last index of each batch that was handed out and is not yet known to be durable; a truncation lowers them.
        self._pending: dict[int, int] = {}
        self.append(entries)
        self.handed = self.durable = self.last_index

    def _reset(self, snapshot: SnapshotMeta) -> None:
        self.snapshot = snapshot
        self._offset = snapshot.index
        self._offset_term = snapshot.term
        self._entries: list[LogEntry] = []
        # The bytes of all entries up to and including each: what lies between two of them is one subtraction.
        self._sizes: list[int] = [0]
        self._configurations: list[tuple[int, Configuration]] = [(snapshot.index, snapshot.configuration)]
        self.committed = self.applied = self.handed = snapshot.index

    @property
    def first_index(self) -> int:
        """The index of the first entry held."""
        return self._offset + 1

    @property
    def last_index(self) -> int:
        """The index of the last entry; that of the snapshot where there is none behind it."""
        return self._offset + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1].term if self._entries else self._offset_term

    @property
    def configuration(self) -> Configuration:
        """The latest configuration in the log, committed or not (dissertation, section 4.1)."""
        return self._configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Where the latest configuration stands."""
        return self._configurations[-1][0]

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration as of an index, which is not compacted yet."""
        return next(configuration for at, configuration in reversed(self._configurations) if at <= index)

    def may_campaign(self, node: int) -> bool:
        """Whether a node votes in the last committed configuration or a later one.

        A node that is no part of the latest may be the only one that has it, and is then needed until it is committed.
        """
        for at, configuration in reversed(self._configurations):
            if configuration.votes(node):
                return True
            if at <= self.committed:
                break
        return False

    def term_of(self, index: int) -> int:
        """Return the term of an entry; `UNKNOWN_TERM` where it is compacted or beyond the end."""
        at = index - self._offset
        if 0 < at <= len(self._entries):
            return self._entries[at - 1].term
        return self._offset_term if not at else UNKNOWN_TERM

    def bytes_between(self, after: int, last: int) -> int:
        """Return the size of the entries behind ``after`` up to ``last``, in bytes."""
        return self._sizes[last - self._offset] - self._sizes[max(after - self._offset, 0)]

    def entries(self, first: int, last: int) -> list[LogEntry]:
        """Return the entries from ``first`` to ``last``, both included."""
        return self._entries[first - self._offset - 1 : last - self._offset]

    def last_within(self, first: int, max_bytes: int) -> int:
        """Return the last index such that the entries from ``first`` on fit ``max_bytes``; ``first`` itself always does."""
        at = first - self._offset
        sizes = self._sizes
        if sizes[-1] - sizes[at - 1] <= max_bytes:
            return self._offset + len(self._entries)
        return max(self._offset + bisect_right(sizes, sizes[at - 1] + max_bytes, at) - 1, first)

    def last_index_of_term(self, term: int, below: int) -> int:
        """Return the last index under ``below`` whose entry has a term; 0 where there is none."""
        beyond = min(max(below - self.first_index, 0), len(self._entries))
        index = self._offset + bisect_right(self._entries, term, hi=beyond, key=_term_of)
        return index if self.term_of(index) == term else 0

    def first_index_of_term(self, index: int) -> int:
        """Return the first index held of the term that the entry at ``index`` has, above what is committed."""
        at = bisect_left(self._entries, self.term_of(index), key=_term_of)
        return max(self.first_index + at, self.committed + 1)

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log is at least as up-to-date as this (Raft paper, section 5.4.1)."""
        own = self.last_term
        return last_term > own or (last_term == own and last_index >= self.last_index)

    def add(self, entry: LogEntry) -> int:
        """Append one entry of type no-op or data; return its index."""
        self._entries.append(entry)
        self._sizes.append(self._sizes[-1] + len(entry.data) + ENTRY_OVERHEAD_BYTES)
        return self._offset + len(self._entries)

    def append(self, entries: Iterable[LogEntry]) -> None:
        """Append entries of any type.

        Raises:
            MalformedMessageError: a configuration entry is damaged; nothing from it on was appended.
        """
        for entry in entries:
            configuration = decode_configuration(entry.data) if entry.type == EntryType.CONFIGURATION else None
            index = self.add(entry)
            if configuration is not None:
                self._configurations.append((index, configuration))

    def merge(self, prev_index: int, entries: Sequence[LogEntry]) -> None:
        """Take entries that follow a matching one: what is there stays, from the first conflict on all is replaced (figure 2).

        Raises:
            ConsistencyError: a committed entry would be replaced.
            MalformedMessageError: a configuration entry is damaged.
        """
        index = prev_index + 1
        skipped = 0
        for entry in entries:
            # What is compacted is committed, and so the same.
            if index > self._offset and self.term_of(index) != entry.term:
                break
            index += 1
            skipped += 1
        if skipped < len(entries):
            if index <= self.last_index:
                self.truncate(index)
            self.append(entries[skipped:] if skipped else entries)

    def truncate(self, index: int) -> None:
        """Drop the entries from ``index`` on.

        Raises:
            ConsistencyError: one of them is committed.
        """
        if index <= self.committed:
            raise ConsistencyError(f"entry {index} is committed (up to {self.committed}) and conflicts with the leader's")
        del self._entries[index - self._offset - 1 :]
        del self._sizes[index - self._offset :]
        while self._configurations[-1][0] >= index:
            self._configurations.pop()
        self.durable = min(self.durable, index - 1)
        self.handed = min(self.handed, index - 1)
        for number, last in self._pending.items():
            self._pending[number] = min(last, index - 1)

    def commit_to(self, index: int) -> None:
        """Raise the commit index."""
        if index > self.committed:
            assert index <= self.last_index, "what is not in the log cannot be committed"
            self.committed = index

    def hand_out(self, number: int) -> tuple[int, tuple[LogEntry, ...]]:
        """Return what must be written next: its first index, the entries; `made_durable` with the number follows."""
        first = self.handed + 1
        entries = tuple(self._entries[first - self._offset - 1 :])
        self.handed = self._pending[number] = self.last_index
        return first, entries

    def made_durable(self, number: int) -> None:
        """Note that the batch of that number is on the disk."""
        self.durable = max(self.durable, self._pending.pop(number))

    @property
    def can_apply(self) -> bool:
        """Whether there is something for `take_committed`."""
        return self.applied < self.committed and self.applied < self.durable

    def take_committed(self) -> tuple[int, tuple[LogEntry, ...]]:
        """Return what the state machine must apply next, its first index first: committed, and durable here."""
        first = self.applied + 1
        last = min(self.committed, self.durable)
        if last < first:
            return first, ()
        self.applied = last
        return first, tuple(self._entries[first - self._offset - 1 : last - self._offset])

    def check_applied(self, index: int) -> None:
        """Make sure that the state machine holds an entry.

        Raises:
            RaftError: it does not.
        """
        if index > self.applied:
            raise RaftError(f"entry {index} is not applied yet (up to {self.applied}), and cannot be compacted")

    def compact(self, index: int, keep: int = 0) -> None:
        """Note that a snapshot of ``index`` exists, and drop the entries up to ``keep`` before it.

        Raises:
            RaftError: the entry is not applied yet.
        """
        self.check_applied(index)
        if index <= self.snapshot.index:
            return
        configuration = self.configuration_at(index)
        self.snapshot = SnapshotMeta(index, self.term_of(index), configuration)
        self._configurations = [(index, configuration), *(item for item in self._configurations if item[0] > index)]
        cut = index - keep - self._offset
        if cut > 0:
            self._offset_term = self.term_of(index - keep)
            self._offset = index - keep
            del self._entries[:cut]
            del self._sizes[:cut]

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Replace the whole log by a snapshot, which is not durable yet (figure 13)."""
        self._reset(snapshot)
        for number in self._pending:
            self._pending[number] = 0
        self.durable = 0
