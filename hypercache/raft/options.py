"""How a Raft group behaves; the same on all of its members."""

from __future__ import annotations

import msgspec

from hypercache.errors import ConfigurationError
from hypercache.limits import (
    RAFT_APPEND_MAX_BYTES,
    RAFT_CATCH_UP_MAX_BYTES,
    RAFT_CHUNK_BYTES,
    RAFT_INFLIGHT_MAX_BYTES,
    RAFT_INFLIGHT_MAX_COUNT,
    RAFT_READS_MAX_COUNT,
    RAFT_SNAPSHOT_HEADER_MAX_BYTES,
    RAFT_UNCOMMITTED_MAX_BYTES,
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the core.

    Attributes:
        election_ticks: without a leader for this long, up to twice as long at random, a voter campaigns.
        heartbeat_ticks: how often a leader shows that it lives.
        pre_vote: whether a campaign first asks whether it could win (dissertation, section 9.6).
        check_quorum: whether a leader that hears no majority for `election_ticks` steps down, and followers that hear one vote for
            no other (dissertation, sections 6.2 and 4.2.3).
        prompt_commits: whether every follower hears of each commit at once. Else those do that wait for it, for an entry that they
            proposed or a read, and others with the next entries or heartbeat; that saves two messages in four.
        lease_ticks: how long after a majority was heard a leader answers reads without asking again (dissertation, section 6.4.1);
            0 for never. Needs `check_quorum`, and ticks that no member's clock stretches by more than
            ``(election_ticks - 1) / lease_ticks``.
        append_max_bytes: the size of the entries of one AppendEntries; a larger entry travels alone.
        inflight_max_count: AppendEntries with entries that a follower has not answered.
        inflight_max_bytes: the size of their entries.
        uncommitted_max_bytes: what a leader holds uncommitted before it refuses proposals.
        catch_up_max_bytes: what a leader keeps of the log behind a snapshot on its way, so that who takes it can go on from there.
        chunk_bytes: the size of a snapshot's chunks.
        reads_max_count: linearizable reads that wait for their confirmation.

    Raises:
        ConfigurationError: the settings contradict each other.
    """

    election_ticks: int = 10
    heartbeat_ticks: int = 1
    pre_vote: bool = True
    check_quorum: bool = True
    prompt_commits: bool = True
    lease_ticks: int = 0
    append_max_bytes: int = RAFT_APPEND_MAX_BYTES
    inflight_max_count: int = RAFT_INFLIGHT_MAX_COUNT
    inflight_max_bytes: int = RAFT_INFLIGHT_MAX_BYTES
    uncommitted_max_bytes: int = RAFT_UNCOMMITTED_MAX_BYTES
    catch_up_max_bytes: int = RAFT_CATCH_UP_MAX_BYTES
    chunk_bytes: int = RAFT_CHUNK_BYTES
    reads_max_count: int = RAFT_READS_MAX_COUNT

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.election_ticks:
            raise ConfigurationError("heartbeat_ticks must be at least 1 and less than election_ticks")
        if self.lease_ticks and not (self.check_quorum and 0 < self.lease_ticks < self.election_ticks):
            raise ConfigurationError("lease_ticks needs check_quorum and must be less than election_ticks")
        if min(self.append_max_bytes, self.inflight_max_count, self.inflight_max_bytes, self.uncommitted_max_bytes) < 1:
            raise ConfigurationError("the bounds of appends and proposals must be at least 1")
        if self.chunk_bytes < RAFT_SNAPSHOT_HEADER_MAX_BYTES // 64:
            raise ConfigurationError(f"chunk_bytes must be at least {RAFT_SNAPSHOT_HEADER_MAX_BYTES // 64}")
