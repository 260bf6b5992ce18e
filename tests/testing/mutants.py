"""Bugs planted on purpose: each replaces one function while it is applied, and the simulator must find it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import msgspec

from hypercache.consensus import driver, proposals, reads, snapshots
from hypercache.errors import NotLeaderError
from hypercache.persist import raft_log, segments
from hypercache.persist.raft_log import Recovered
from hypercache.raft import Configuration, HardState, SnapshotMeta, core, elections, quorum
from hypercache.raft.candidate import Candidate
from hypercache.raft.follower import Follower
from hypercache.raft.leader import Leader
from hypercache.raft.log import RaftLog
from hypercache.raft.outbox import Outbox
from hypercache.raft.reads import ReadQueue, serve_read
from hypercache.raft.ready import Outbound
from hypercache.raft.sessions import Sessions, Verdict, sequence_of
from hypercache.testing import node as simulated_node
from hypercache.testing.disk import SimulatedDisk
from hypercache.testing.watched import WatchedStorage
from hypercache.wire.messages import (
    AppendEntries,
    AppendResponse,
    PreVoteRequest,
    SnapshotResponse,
    VoteRequest,
    VoteResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypercache.raft.core import Raft

MUTANTS: dict[str, Callable[[], Any]] = {}
"""What applies each, by name: a context manager."""


def mutant(plant: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    """Enter a function that returns patches among the mutants."""

    @contextmanager
    def applied() -> Iterator[None]:
        with ExitStack() as stack:
            for each in plant():
                stack.enter_context(each)
            yield

    MUTANTS[plant.__name__] = applied
    return plant


def _handler(message: type[Any], handler: Callable[..., None]) -> Any:
    return patch.dict(core._HANDLERS, {message: handler})


def _at_once(*types: type[Any]) -> Any:
    """Let promises of some types leave before the disk has what they promise."""
    original = Outbox.promise

    def promise(self: Outbox, to: int, message: Any, exchange: int) -> None:
        if type(message) in types:
            self.reply(to, message, exchange)
        else:
            original(self, to, message, exchange)

    return patch.object(Outbox, "promise", promise)


# Votes and terms


@mutant
def votes_twice_in_a_term() -> list[Any]:
    def on_vote_request(raft: Raft, sender: int, message: VoteRequest, exchange: int) -> None:
        if message.term == raft.term and raft.state is not core.State.LEADER:
            raft.vote = raft.leader = 0
        elections.on_vote_request(raft, sender, message, exchange)

    return [_handler(VoteRequest, on_vote_request)]


@mutant
def vote_leaves_before_fsync() -> list[Any]:
    return [_at_once(VoteResponse)]


@mutant
def asks_for_votes_before_fsync() -> list[Any]:
    original = Outbox.request

    def request(self: Outbox, to: int, message: Any) -> int:
        if type(message) is not VoteRequest:
            return original(self, to, message)
        self.last_exchange += 1
        self._messages.append(Outbound(to, message, self.last_exchange, False))
        return self.last_exchange

    return [patch.object(Outbox, "request", request)]


@mutant
def counts_its_own_vote_before_fsync() -> list[Any]:
    original = Candidate.start

    def start(self: Candidate) -> None:
        original(self)
        if not self.pre:
            self.count(self._raft.node_id, True)

    return [patch.object(Candidate, "start", start), _at_once(VoteResponse)]


@mutant
def forgets_its_vote_at_restart() -> list[Any]:
    def reopen(*arguments: Any, **named: Any) -> Any:
        storage, found = raft_log.open_raft_storage(*arguments, **named)
        state = HardState(found.hard_state.term, 0, found.hard_state.commit)
        return storage, Recovered(state, found.snapshot, found.entries)

    return [patch.object(simulated_node, "open_raft_storage", reopen)]


@mutant
def votes_for_a_log_that_lacks_entries() -> list[Any]:
    return [patch.object(RaftLog, "up_to_date", lambda self, last_index, last_term: True)]


@mutant
def compares_logs_by_length_alone() -> list[Any]:
    return [patch.object(RaftLog, "up_to_date", lambda self, last_index, last_term: last_index >= self.last_index)]


@mutant
def half_of_the_votes_elect() -> list[Any]:
    def vote_result(voters: Any, votes: Any) -> quorum.VoteResult:
        if voters and sum(votes.get(node) is True for node in voters) * 2 >= len(voters) - 1:
            return quorum.VoteResult.WON
        return original(voters, votes)

    original = quorum.vote_result
    return [patch.object(quorum, "vote_result", vote_result)]


@mutant
def counts_votes_of_earlier_terms() -> list[Any]:
    def on_vote_response(raft: Raft, sender: int, message: VoteResponse, exchange: int) -> None:
        role = raft.role
        if isinstance(role, Candidate) and not role.pre and message.vote_granted:
            role.count(sender, True)

    return [_handler(VoteResponse, on_vote_response)]


@mutant
def asking_beforehand_raises_the_term() -> list[Any]:
    def on_pre_vote_request(raft: Raft, sender: int, message: PreVoteRequest, exchange: int) -> None:
        if message.term > raft.term:
            raft.become_follower(message.term, 0)
        elections.on_pre_vote_request(raft, sender, message, exchange)

    return [_handler(PreVoteRequest, on_pre_vote_request)]


@mutant
def follows_leaders_of_earlier_terms() -> list[Any]:
    original = core.Raft._on_append_entries

    def on_append_entries(raft: Raft, sender: int, message: AppendEntries, exchange: int) -> None:
        if message.term < raft.term:
            message = msgspec.structs.replace(message, term=raft.term)
        original(raft, sender, message, exchange)

    return [_handler(AppendEntries, on_append_entries)]


# The log


@mutant
def success_leaves_before_fsync() -> list[Any]:
    return [_at_once(AppendResponse)]


@mutant
def snapshot_is_confirmed_before_fsync() -> list[Any]:
    return [_at_once(SnapshotResponse)]


@mutant
def leader_counts_its_own_entry_before_fsync() -> list[Any]:
    original = Leader._commit

    def commit(self: Leader) -> None:
        log = self._raft.log
        durable, log.durable = log.durable, log.last_index
        try:
            original(self)
        finally:
            log.durable = durable

    return [patch.object(Leader, "_commit", commit)]


@mutant
def commits_entries_of_earlier_terms() -> list[Any]:
    original = Leader._commit

    def commit(self: Leader) -> None:
        log = self._raft.log
        index = self._agreed({node: progress.match for node, progress in self.progress.items()}, log.durable)
        original(self)
        if self._raft.role is self:
            log.commit_to(min(index, log.last_index))

    return [patch.object(Leader, "_commit", commit)]


@mutant
def half_of_the_members_commit() -> list[Any]:
    def majority_value(values: Any) -> int:
        return sorted(values)[(len(values) + 1) // 2] if len(values) > 1 else original(values)

    original = quorum.majority_value
    return [patch.object(quorum, "majority_value", majority_value)]


@mutant
def follower_commits_beyond_what_it_was_sent() -> list[Any]:
    original = Follower.append

    def append(self: Follower, message: AppendEntries) -> AppendResponse:
        answer = original(self, message)
        if answer.success:
            self._raft.log.commit_to(min(message.leader_commit, self._raft.log.last_index))
        return answer

    return [patch.object(Follower, "append", append)]


@mutant
def keeps_entries_that_conflict() -> list[Any]:
    original = RaftLog.merge

    def merge(self: RaftLog, prev_index: int, entries: Any) -> None:
        there = max(self.last_index - prev_index, 0)
        if there < len(entries):
            original(self, prev_index + there, entries[there:])

    return [patch.object(RaftLog, "merge", merge)]


@mutant
def takes_entries_behind_others_than_the_leaders() -> list[Any]:
    original = Follower.append

    def append(self: Follower, message: AppendEntries) -> AppendResponse:
        term = self._raft.log.term_of(message.prev_log_index)
        if term > 0:
            message = msgspec.structs.replace(message, prev_log_term=term)
        return original(self, message)

    return [patch.object(Follower, "append", append)]


@mutant
def an_old_append_cuts_newer_entries_off() -> list[Any]:
    original = RaftLog.merge

    def merge(self: RaftLog, prev_index: int, entries: Any) -> None:
        if self.committed <= prev_index < self.last_index:
            self.truncate(prev_index + 1)
        original(self, prev_index, entries)

    return [patch.object(RaftLog, "merge", merge)]


@mutant
def replaces_committed_entries() -> list[Any]:
    def truncate(self: RaftLog, index: int) -> None:
        self.committed = min(self.committed, index - 1)
        original(self, index)

    original = RaftLog.truncate
    return [
        patch.object(RaftLog, "truncate", truncate),
        patch.object(RaftLog, "up_to_date", lambda self, last_index, last_term: last_index >= self.last_index),
    ]


@mutant
def takes_a_refusal_for_success() -> list[Any]:
    original = Leader.append_response

    def append_response(self: Leader, sender: int, message: AppendResponse, exchange: int) -> None:
        if not message.success:
            message = AppendResponse(message.term, True, 0, 0)
        original(self, sender, message, exchange)

    return [patch.object(Leader, "append_response", append_response)]


@mutant
def applies_what_is_not_committed() -> list[Any]:
    original = RaftLog.take_committed

    def take_committed(self: RaftLog) -> Any:
        committed, self.committed = self.committed, self.last_index
        try:
            return original(self)
        finally:
            self.committed = committed

    return [patch.object(RaftLog, "take_committed", take_committed)]


@mutant
def applies_what_its_own_disk_lacks() -> list[Any]:
    original = RaftLog.take_committed

    def take_committed(self: RaftLog) -> Any:
        durable, self.durable = self.durable, self.last_index
        try:
            return original(self)
        finally:
            self.durable = durable

    return [patch.object(RaftLog, "take_committed", take_committed)]


@mutant
def counts_a_truncated_batch_as_durable() -> list[Any]:
    def made_durable(self: RaftLog, number: int) -> None:
        self._pending.pop(number)
        self.durable = self.last_index

    return [patch.object(RaftLog, "made_durable", made_durable)]


# Members


@mutant
def one_majority_of_a_joint_configuration_decides() -> list[Any]:
    return [
        patch("hypercache.raft.leader.joint_value", lambda voters, outgoing, values: quorum.joint_value(voters, (), values)),
        patch(
            "hypercache.raft.candidate.joint_vote_result",
            lambda voters, outgoing, votes: quorum.joint_vote_result(voters, (), votes),
        ),
    ]


@mutant
def learners_count() -> list[Any]:
    def agreed(self: Leader, values: dict[int, int], own: int) -> int:
        configuration = self._raft.log.configuration
        values[self._raft.node_id] = own
        return quorum.joint_value(configuration.members(), configuration.outgoing, values)

    return [patch.object(Leader, "_agreed", agreed)]


@mutant
def changes_members_without_joint_consensus() -> list[Any]:
    def change(self: Configuration, voters: Any, learners: Any = (), *, auto_leave: bool = True) -> Configuration:
        wanted = original(self, voters, learners, auto_leave=auto_leave)
        return wanted.leave() if wanted.joint else wanted

    original = Configuration.change
    return [patch.object(Configuration, "change", change)]


@mutant
def keeps_configurations_that_were_cut_off() -> list[Any]:
    original = RaftLog.truncate

    def truncate(self: RaftLog, index: int) -> None:
        kept = list(self._configurations)
        original(self, index)
        self._configurations = kept

    return [patch.object(RaftLog, "truncate", truncate)]


@mutant
def snapshot_without_its_configuration() -> list[Any]:
    original = WatchedStorage.save_snapshot

    def save_snapshot(self: WatchedStorage, snapshot: SnapshotMeta, stream: Any) -> None:
        original(self, SnapshotMeta(snapshot.index, snapshot.term), stream)

    return [patch.object(WatchedStorage, "save_snapshot", save_snapshot)]


@mutant
def snapshot_with_the_latest_configuration() -> list[Any]:
    return [patch.object(RaftLog, "configuration_at", lambda self, index: self.configuration)]


# Snapshots and the disk


@mutant
def sessions_are_not_in_the_snapshot() -> list[Any]:
    original = Sessions.encode
    return [patch.object(Sessions, "encode", lambda self: original(Sessions()))]


@mutant
def compacts_without_a_snapshot() -> list[Any]:
    return [patch.object(WatchedStorage, "save_snapshot", lambda self, snapshot, stream: None)]


@mutant
def an_old_snapshot_replaces_a_newer_log() -> list[Any]:
    original = Follower.install

    def install(self: Follower, message: Any) -> Any:
        log = self._raft.log
        committed, log.committed = log.committed, -1
        with patch.object(RaftLog, "term_of", lambda self, index: -1):
            answer = original(self, message)
        log.committed = max(committed, log.committed)
        return answer

    return [patch.object(Follower, "install", install)]


@mutant
def a_snapshot_is_adopted_under_a_wrong_index() -> list[Any]:
    original = snapshots.Snapshots.make_if_due

    def make_if_due(self: Any) -> None:
        applied = self._applying.applied
        if applied > self._raft.log.first_index:
            self._applying.applied -= 1
        try:
            original(self)
        finally:
            self._applying.applied = applied

    return [patch.object(snapshots.Snapshots, "make_if_due", make_if_due)]


@mutant
def leaves_a_torn_tail() -> list[Any]:
    original = segments.Segments.resume

    def resume(self: Any, end: int, size: int, *rest: Any) -> None:
        original(self, end, end, *rest)

    return [patch.object(segments.Segments, "resume", resume)]


@mutant
def skips_the_fsync() -> list[Any]:
    original = segments.Segments.append

    def append(self: Any, batch: bytes) -> None:
        file = self._file
        with patch.object(type(file), "sync", lambda self: None):
            original(self, batch)

    return [patch.object(segments.Segments, "append", append)]


@mutant
def does_not_sync_the_directory() -> list[Any]:
    return [patch.object(SimulatedDisk, "sync", lambda self: None)]


@mutant
def advances_before_the_disk_is_done() -> list[Any]:
    original = driver.Consensus._begin_write

    def begin_write(self: Any) -> None:
        original(self)
        batch = list(self._writing)
        for ready in batch:
            if ready.snapshot is None:
                self.raft.advance(ready)
        self._writing = [ready for ready in batch if ready.snapshot is not None]
        if not self._writing:
            self._journal._jobs[-1] = (self._journal._jobs[-1][0], lambda result, error: None)

    return [patch.object(driver.Consensus, "_begin_write", begin_write)]


@mutant
def a_full_disk_counts_as_written() -> list[Any]:
    return [patch.object(driver.Consensus, "_disk_filled", lambda self, error: self._note_written())]


# Reads


@mutant
def reads_without_asking_a_majority() -> list[Any]:
    def start_read(self: Leader, read: Any) -> None:
        serve_read(self._raft, read, self._raft.log.committed)

    return [patch.object(Leader, "_start_read", start_read)]


@mutant
def reads_before_the_term_has_a_commit() -> list[Any]:
    original = Leader.read_index

    def read_index(self: Leader, read: Any) -> None:
        # A read index of 0 stands for a refusal.
        if self._raft.log.committed:
            self._start_read(read)
        else:
            original(self, read)

    return [patch.object(Leader, "read_index", read_index)]


@mutant
def answers_to_earlier_requests_confirm_reads() -> list[Any]:
    original = ReadQueue.start

    def start(self: ReadQueue, read: Any, index: int, barrier: int) -> None:
        original(self, read, index, max(barrier - 40, 0))

    return [patch.object(ReadQueue, "start", start)]


@mutant
def reads_before_the_index_is_applied() -> list[Any]:
    original = reads.Reads.applied
    return [patch.object(reads.Reads, "applied", lambda self, index: original(self, 1 << 62))]


@mutant
def a_lease_outlives_a_transfer() -> list[Any]:
    original = Leader.transfer

    def transfer(self: Leader, target: int) -> None:
        leases = self._leases
        try:
            original(self, target)
        finally:
            self._leases = leases

    return [patch.object(Leader, "transfer", transfer)]


@mutant
def a_lease_does_not_end() -> list[Any]:
    return [patch.object(Leader, "_lease_holds", lambda self: self._leases and self._committed_in_term())]


# Exactly once


@mutant
def applies_a_proposal_twice() -> list[Any]:
    original = Sessions.judge

    def judge(self: Sessions, proposal: Any) -> tuple[Verdict, bytes]:
        original(self, proposal)
        return Verdict.NEW, b""

    return [patch.object(Sessions, "judge", judge)]


@mutant
def a_retry_is_a_new_proposal() -> list[Any]:
    original = proposals.Proposals._send_again

    def send_again(self: Any, proposal: Any) -> None:
        del self._pending[proposal.sequence]
        proposal.sequence = sequence_of(self._boot, self._counter)
        self._counter += 1
        self._pending[proposal.sequence] = proposal
        original(self, proposal)

    return [patch.object(proposals.Proposals, "_send_again", send_again)]


@mutant
def a_proposal_given_up_counts_as_not_done() -> list[Any]:
    return [patch.object(proposals.Proposals, "_given_up", lambda self, proposal: NotLeaderError(0))]


@mutant
def a_follower_prepares_what_it_forwards() -> list[Any]:
    original = proposals.Proposals._send

    def send(self: Any, proposal: Any) -> None:
        proposal.data = self._prepare(proposal.data)
        original(self, proposal)

    return [patch.object(proposals.Proposals, "_send", send)]
