"""The Raft log read back after a restart: strictly, and without guesses (docs/durability.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hypercache.errors import ConfigurationError
from hypercache.persist.records import BATCH_END_BYTES, Fault, damaged, read_records
from hypercache.persist.segments import segment_name, segment_numbers
from hypercache.persist.tail import is_torn
from hypercache.persist.terms import Terms
from hypercache.raft import HardState, SnapshotMeta
from hypercache.wire.messages import AppendEntries, LogBatch, LogSegment, LogState

if TYPE_CHECKING:
    from hypercache.persist.disk import Disk
    from hypercache.persist.records import Record
    from hypercache.wire.messages import LogEntry


class Found(msgspec.Struct):
    """What a log holds.

    Attributes:
        segments: number and previous index of each segment that counts, ascending; none for an empty directory.
        leftovers: numbers of segments that nothing needs any more.
        state: term, vote and commit index.
        terms: of the entries.
        entries: those behind the snapshot.
        end: where what is sound of the last segment ends, in bytes.
        size: the last segment's length, bytes.
        begin: where the batch begins that is not ended there; ``end`` where there is none.
    """

    segments: list[tuple[int, int]]
    leftovers: list[int]
    state: HardState
    terms: Terms
    entries: list[LogEntry]
    end: int = 0
    size: int = 0
    begin: int = 0


def read_log(disk: Disk, cluster_id: int, node_id: int, snapshot: SnapshotMeta | None) -> Found:
    """Read a log; nothing is changed.

    Args:
        disk: where it is.
        cluster_id: whose it must be.
        node_id: likewise.
        snapshot: the newest one there; None for none.

    Raises:
        LogDamagedError: it is damaged, or a part of it is missing.
        ConfigurationError: it is another node's.
        OSError: it cannot be read.
    """
    return _Reader(disk, cluster_id, node_id, snapshot).read()


class _Reader:
    def __init__(self, disk: Disk, cluster_id: int, node_id: int, snapshot: SnapshotMeta | None) -> None:
        self._disk = disk
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._snapshot = snapshot
        self._covered = snapshot.index if snapshot else 0
        self._found = Found([], [], HardState(), Terms(0, 0), [])

    def read(self) -> Found:
        disk, found = self._disk, self._found
        numbers = segment_numbers(disk.names())
        if numbers and not self._is_begun(numbers[-1]):
            found.leftovers.append(numbers.pop())
        if not numbers:
            if self._snapshot is not None or found.leftovers not in ([], [1]):
                reason = "the log is missing: with it the node's vote, and what it has acknowledged"
                raise damaged(disk, segment_name(1), 0, reason)
            return found
        heads = [(number, self._head(number)) for number in _last_run(numbers)]
        start = max((place for place, (_, head) in enumerate(heads) if head.prev_index <= self._covered), default=-1)
        if start < 0:
            number, head = heads[0]
            reason = f"the segment before it is missing: it begins behind entry {head.prev_index}"
            reason += f", and the snapshot ends with entry {self._covered}" if self._snapshot else ", and there is no snapshot"
            raise damaged(disk, segment_name(number), 0, reason)
        kept = heads[start:]
        found.leftovers = [*(number for number in numbers if number < kept[0][0]), *found.leftovers]
        found.segments = [(number, head.prev_index) for number, head in kept]
        found.terms = Terms(kept[0][1].prev_index, kept[0][1].prev_term)
        for number, head in kept:
            self._read_segment(number, head, last=number == numbers[-1])
        return found

    def _is_begun(self, number: int) -> bool:
        """Whether the head of the last segment was written; the one before it is the last one else."""
        records = read_records(self._disk, segment_name(number))
        read = 0
        try:
            for _ in records:
                read += 1
                if read == 2:
                    return True
            fault = Fault(0, "")
        except Fault as found:
            fault = found
        self._require_torn(number, 0, fault)
        return False

    def _require_torn(self, number: int, begin: int, fault: Fault) -> None:
        name = segment_name(number)
        rest = self._disk.read(name, begin, self._disk.size(name))
        if fault.sound or not is_torn(rest, begin, fault.offset - begin):
            raise damaged(self._disk, name, fault.offset, fault.reason)

    def _head(self, number: int) -> LogSegment:
        """Return a segment's first record."""
        name = segment_name(number)
        try:
            _, record = next(read_records(self._disk, name), (0, None))
        except Fault as fault:
            raise damaged(self._disk, name, fault.offset, fault.reason) from None
        if not isinstance(record, LogSegment) or record.number != number:
            raise damaged(self._disk, name, 0, f"it does not begin as segment {number}")
        if (record.cluster_id, record.node_id) != (self._cluster_id, self._node_id):
            raise ConfigurationError(
                f"{self._disk.path}/{name} is the log of node {record.node_id} in cluster {record.cluster_id}, and this is node "
                f"{self._node_id} in cluster {self._cluster_id}; give each node a --data-dir of its own"
            )
        return record

    def _read_segment(self, number: int, head: LogSegment, *, last: bool) -> None:
        name = segment_name(number)
        found, terms = self._found, self._found.terms
        if (head.prev_index, head.prev_term) != (terms.last, terms.last_term):
            # A snapshot took the place of all before.
            if head.prev_index > self._covered:
                raise damaged(self._disk, name, 0, f"it follows entry {head.prev_index}, the segment before ends with {terms.last}")
            found.terms = Terms(head.prev_index, head.prev_term)
            found.entries.clear()
        offset = begin = 0
        bad: Fault | None = None
        try:
            for offset, record in read_records(self._disk, name):
                if isinstance(record, LogBatch):
                    _require_begin(offset, record, begin)
                    begin = offset + BATCH_END_BYTES
                elif offset:
                    self._take(offset, record)
        except Fault as fault:
            bad = fault
        size = self._disk.size(name)
        end = bad.offset if bad else size
        if bad is not None:
            if not last:
                raise damaged(self._disk, name, end, bad.reason)
            self._require_torn(number, begin, bad)
        elif begin != size and not last:
            raise damaged(self._disk, name, size, "the end of the segment is missing")
        found.end, found.size, found.begin = end, size, begin

    def _take(self, offset: int, record: Record) -> None:
        found = self._found
        if isinstance(record, LogState):
            if record.term < found.state.term:
                raise Fault(offset, f"the term falls from {found.state.term} to {record.term}", sound=True)
            found.state = HardState(record.term, record.vote, max(record.commit, found.state.commit))
        elif isinstance(record, AppendEntries):
            self._take_entries(offset, record)
        else:
            raise Fault(offset, "the beginning of a segment inside of one", sound=True)

    def _take_entries(self, offset: int, record: AppendEntries) -> None:
        found, terms = self._found, self._found.terms
        prev, entries = record.prev_log_index, record.entries
        if prev < terms.first:
            # What the segments before held from there on was replaced; it is covered by the snapshot.
            terms = found.terms = Terms(prev, record.prev_log_term)
            found.entries.clear()
        if not entries or prev > terms.last or terms.at(prev) != record.prev_log_term:
            reason = f"entries behind {prev} of term {record.prev_log_term}, where the log ends with {terms.last}"
            raise Fault(offset, reason, sound=True)
        terms.replace(prev + 1, entries)
        covered = self._covered
        if prev >= covered:
            kept = found.entries
            if prev - covered < len(kept):
                del kept[prev - covered :]
            kept += entries
        else:
            found.entries = list(entries[covered - prev :])
        if record.leader_commit > found.state.commit:
            found.state = HardState(found.state.term, found.state.vote, record.leader_commit)


def _require_begin(offset: int, record: LogBatch, begin: int) -> None:
    if record.begin != begin:
        raise Fault(offset, f"a batch that began at {begin} ends as one from {record.begin}", sound=True)


def _last_run(numbers: list[int]) -> list[int]:
    """Return the last numbers without a gap: what is before one was being removed."""
    start = len(numbers) - 1
    while start and numbers[start - 1] == numbers[start] - 1:
        start -= 1
    return numbers[start:]
