"""Snapshots of a node's state machine: made when the log has grown, loaded when the leader sent one; both off the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from hypercache.errors import DiskFullError
from hypercache.raft import SnapshotMeta

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.consensus.applying import Applying, Loaded
    from hypercache.consensus.contracts import Journal, Storage
    from hypercache.consensus.driver import ConsensusLimits
    from hypercache.raft import Raft

_log = Logger()


class Snapshots:
    """The snapshots of one node.

    Args:
        raft: the core.
        applying: the state machine.
        storage: where they are kept.
        journal: waits for the log.
        own_journal: waits for snapshots, beside the log.
        limits: says when one is due.
        failed: called where one cannot be trusted.
    """

    def __init__(
        self,
        raft: Raft,
        applying: Applying,
        storage: Storage,
        journal: Journal,
        own_journal: Journal,
        limits: ConsensusLimits,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._raft = raft
        self._applying = applying
        self._storage = storage
        self._journal = journal
        self._own_journal = own_journal
        self._limits = limits
        self._failed = failed
        self._busy = False
        # After a full disk: how much the log must have grown before the next try.
        self._wanted_bytes = limits.snapshot_after

    def make_if_due(self) -> None:
        """Begin a snapshot where the applied part of the log has grown enough and none is being made."""
        if self._busy:
            return
        log = self._raft.log
        applied = self._applying.applied
        # While a snapshot of the leader's is on its way in, what was applied lies before the log.
        if applied <= log.snapshot.index or log.bytes_between(log.snapshot.index, applied) < self._wanted_bytes:
            return
        meta = SnapshotMeta(applied, log.term_of(applied), log.configuration_at(applied))
        if not meta.configuration.voters:
            # The first configuration of a group is in no entry: a new node may have applied some before it hears of another.
            return
        self._busy = True
        stream = self._applying.freeze()
        self._own_journal.run(
            lambda: self._storage.save_snapshot(meta, stream),
            lambda _, error: self._saved(meta, error),
        )

    def _saved(self, meta: SnapshotMeta, error: BaseException | None) -> None:
        self._busy = False
        if isinstance(error, DiskFullError):
            self._wanted_bytes += self._limits.snapshot_after
            _log.error("no snapshot of the log could be made: {reason}", reason=error)
            return
        if error is not None:
            self._failed(error)
            return
        self._wanted_bytes = self._limits.snapshot_after
        log = self._raft.log
        if meta.index <= log.snapshot.index:
            return
        self._raft.compact(meta.index, self._limits.keep)
        kept = log.first_index - 1
        self._journal.run(lambda: self._storage.compact(kept), self._compacted)

    def _compacted(self, _: object, error: BaseException | None) -> None:
        if error is not None:
            self._failed(error)

    def load(self, adopt: Callable[[Loaded], None]) -> None:
        """Read the newest snapshot of the disk, then call ``adopt`` with it, on the loop."""

        def loaded(result: Loaded, error: BaseException | None) -> None:
            if error is not None:
                self._failed(error)
            else:
                adopt(result)

        self._own_journal.run(lambda: self._applying.load(iter(self._storage.load_snapshot())), loaded)
