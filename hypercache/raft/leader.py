"""A leader: takes proposals, commits, answers reads, changes members, hands over (Raft paper, figure 2; dissertation, 3 to 6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hypercache.errors import BusyError, ConfigurationChangeError, NotLeaderError, RaftError
from hypercache.raft.log import ENTRY_OVERHEAD_BYTES, EntryType
from hypercache.raft.progress import Progress, ProgressState
from hypercache.raft.quorum import joint_value
from hypercache.raft.reads import Read, ReadQueue, refuse_read, serve_read
from hypercache.raft.replication import Replication
from hypercache.wire.messages import LogEntry, TimeoutNow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercache.raft.configuration import Configuration
    from hypercache.raft.core import Raft
    from hypercache.wire.messages import AppendResponse, SnapshotResponse

_PROPOSAL: Final = struct.Struct(">QQQ")
_DATA: Final = int(EntryType.DATA)


class Leader:
    """The role of a leader; it ends with the term.

    Args:
        raft: the node's core.

    Attributes:
        replication: what the followers are sent.
    """

    __slots__ = ("_leases", "_raft", "_reads", "_ticks", "_transfer_ticks", "_transferee", "replication")

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._reads = ReadQueue()
        self._ticks = 0
        self._transferee = 0
        self._transfer_ticks = 0
        # A transfer makes followers vote while the lease runs: from then on it counts for nothing (dissertation, section 6.4.1).
        self._leases = raft.options.lease_ticks > 0
        self.replication = Replication(raft)

    def start(self) -> None:
        """Take office: an entry of the new term, without which nothing commits (dissertation, section 6.4)."""
        log = self._raft.log
        self.replication.follow(log.configuration.members(), log.last_index + 1)
        self.replication.await_commit(log.add(LogEntry(self._raft.term, EntryType.NO_OP, b"")))

    @property
    def progress(self) -> dict[int, Progress]:
        """The followers."""
        return self.replication.progress

    def tick(self) -> None:
        """Show life, see whether a majority does, give up a transfer that does not come about."""
        raft = self._raft
        options = raft.options
        self._ticks += 1
        self.replication.tick = self._ticks
        if self._transferee:
            self._transfer_ticks += 1
            if self._transfer_ticks >= options.election_ticks:
                self._transferee = 0
        if options.check_quorum and self._ticks % options.election_ticks == 0 and not self._quorum_active():
            raft.become_follower(raft.term, 0)
            return
        if self._ticks % options.heartbeat_ticks == 0:
            self.replication.heartbeat()

    def _quorum_active(self) -> bool:
        active = {node: int(progress.active) for node, progress in self.progress.items()}
        for progress in self.progress.values():
            progress.active = False
        return bool(self._agreed(active, 1))

    def _agreed(self, values: dict[int, int], own: int) -> int:
        """Return what a majority has reached of what each follower and this node has."""
        configuration = self._raft.log.configuration
        values[self._raft.node_id] = own
        return joint_value(configuration.voters, configuration.outgoing, values)

    # Proposals

    def propose(self, client_id: int, sequence: int, lowest_unanswered: int, data: bytes) -> int:
        """Append a proposal; return its index.

        Raises:
            BusyError: too much is uncommitted, or the leadership is being handed over.
        """
        raft = self._raft
        log = raft.log
        if self._transferee:
            raise BusyError("the leadership is being handed over")
        uncommitted = log.bytes_between(log.committed, log.last_index)
        if uncommitted and uncommitted + len(data) + ENTRY_OVERHEAD_BYTES > raft.options.uncommitted_max_bytes:
            raise BusyError("too much is not yet committed")
        index = log.add(LogEntry(raft.term, _DATA, _PROPOSAL.pack(client_id, sequence, lowest_unanswered) + data))
        proposer = self.progress.get(client_id)
        if proposer is not None:
            proposer.awaited = index
        return index

    def propose_configuration(self, voters: Iterable[int], learners: Iterable[int], *, auto_leave: bool) -> int:
        """Append the beginning of a change of members; return its index.

        Raises:
            ConfigurationChangeError: the change is malformed, or one is under way.
            BusyError: the leadership is being handed over, or nothing of this term is committed yet.
        """
        self._check_change()
        return self._append_configuration(self._raft.log.configuration.change(voters, learners, auto_leave=auto_leave))

    def leave_joint(self) -> int:
        """Append the end of a change that does not end by itself; return its index.

        Raises:
            ConfigurationChangeError: there is none, or its beginning is not committed yet.
            BusyError: as above.
        """
        self._check_change()
        return self._append_configuration(self._raft.log.configuration.leave())

    def _check_change(self) -> None:
        log = self._raft.log
        if self._transferee:
            raise BusyError("the leadership is being handed over")
        if log.configuration_index > log.committed:
            raise ConfigurationChangeError("the last change of configuration is not committed yet")
        if not self._committed_in_term():
            raise BusyError("the leader has not committed anything in its term yet")

    def _append_configuration(self, configuration: Configuration) -> int:
        log = self._raft.log
        before = log.configuration.members()
        log.append([LogEntry(self._raft.term, EntryType.CONFIGURATION, configuration.encode())])
        # Who goes is sent the log until its going is committed, so that it hears of it, and does not campaign.
        self.replication.follow({*before, *configuration.members()}, log.last_index)
        self.replication.await_commit(log.last_index)
        return log.last_index

    # Commit

    def _committed_in_term(self) -> bool:
        log = self._raft.log
        return log.term_of(log.committed) == self._raft.term

    def made_durable(self) -> None:
        """See what this node's own disk makes committed: it counts for itself like any other."""
        self._commit()

    def _commit(self) -> None:
        """Commit what a majority holds, if it is of this term (figure 2, rules for leaders; section 5.4.2)."""
        raft = self._raft
        log = raft.log
        index = self._agreed({node: progress.match for node, progress in self.progress.items()}, log.durable)
        if index <= log.committed or log.term_of(index) != raft.term:
            return
        log.commit_to(index)
        for read in self._reads.take_early():
            self._start_read(read)
        if log.configuration_index <= index:
            self._configuration_committed(log.configuration)

    def _configuration_committed(self, configuration: Configuration) -> None:
        raft = self._raft
        if configuration.joint:
            if configuration.auto_leave:
                self._append_configuration(configuration.leave())
            return
        if len(self.progress) >= len(configuration.members()):
            self._dismiss(configuration)
        if raft.node_id not in configuration.voters:
            # A leader manages the change that removes it, and goes once it is committed (dissertation, section 4.2.2).
            self.replication.heartbeat()
            self.flush()
            heir = max(configuration.voters, key=lambda node: self.progress[node].match)
            raft.outbox.tell(heir, TimeoutNow(raft.term, raft.node_id))
            raft.become_follower(raft.term, 0)

    def _dismiss(self, configuration: Configuration) -> None:
        """Let those who are no members any more know that this is committed, and forget them."""
        if self.progress.keys() - set(configuration.members()):
            self.flush()
            self.replication.follow(configuration.members(), self._raft.log.last_index)

    # Answers

    def append_response(self, sender: int, message: AppendResponse, exchange: int) -> bool:
        """Take a follower's answer to AppendEntries; return whether anything may follow: to be sent, applied or read."""
        progress = self.progress.get(sender)
        if progress is None:
            return False
        log = self._raft.log
        committed, next_index, state = log.committed, progress.next, progress.state
        if self.replication.append_response(progress, message, exchange):
            self._commit()
            if self._raft.role is not self:
                return True
            if self._transferee == sender:
                self._hand_over()
        reading = self._reads.first_barrier is not None
        self._confirm_reads()
        quiet = state is progress.state is ProgressState.REPLICATE and progress.next == next_index > log.last_index
        return not quiet or reading or self._transferee > 0 or log.committed > committed

    def snapshot_response(self, sender: int, message: SnapshotResponse, exchange: int) -> None:
        """Take a follower's answer to InstallSnapshot."""
        progress = self.progress.get(sender)
        if progress is not None and self.replication.snapshot_response(progress, message, exchange):
            self._commit()

    # Reads

    def read_index(self, read: Read) -> None:
        """Take a linearizable read; it comes back through the core once it is confirmed.

        Raises:
            BusyError: too many wait already.
        """
        if len(self._reads) >= self._raft.options.reads_max_count:
            raise BusyError("too many reads wait for their confirmation")
        if self._committed_in_term():
            self._start_read(read)
        else:
            self._reads.wait_for_commit(read)

    def _start_read(self, read: Read) -> None:
        raft = self._raft
        if self._lease_holds():
            serve_read(raft, read, raft.log.committed)
            return
        self._reads.start(read, raft.log.committed, raft.outbox.last_exchange)
        self.replication.heartbeat()

    def _lease_holds(self) -> bool:
        if not self._leases:
            return False
        heard = self._agreed({node: progress.acked_tick + 1 for node, progress in self.progress.items()}, self._ticks + 1) - 1
        return heard >= 0 and self._ticks - heard < self._raft.options.lease_ticks

    def _confirm_reads(self) -> None:
        barrier = self._reads.first_barrier
        if barrier is None:
            return
        raft = self._raft
        acked = self._agreed(
            {node: progress.acked_exchange for node, progress in self.progress.items()}, raft.outbox.last_exchange + 1
        )
        if acked > barrier:
            for read in self._reads.confirmed(acked):
                serve_read(raft, read, read.index)

    def refuse_reads(self) -> None:
        """Refuse all reads that wait: the leadership has ended."""
        for read in self._reads:
            refuse_read(self._raft, read)
        self._reads = ReadQueue()

    # Handing over

    def transfer(self, target: int) -> None:
        """Begin to hand the leadership to a voter (dissertation, section 3.10).

        Raises:
            RaftError: the target does not vote in the current configuration.
            BusyError: a transfer is under way.
        """
        raft = self._raft
        if target == raft.node_id:
            return
        if target not in raft.log.configuration.voters:
            raise RaftError(f"node {target} does not vote, and cannot lead")
        if self._transferee:
            raise BusyError("the leadership is being handed over already")
        self._transferee = target
        self._transfer_ticks = 0
        self._leases = False
        self._hand_over()

    def _hand_over(self) -> None:
        raft = self._raft
        if self.progress[self._transferee].match == raft.log.last_index:
            raft.outbox.tell(self._transferee, TimeoutNow(raft.term, raft.node_id))

    def flush(self) -> None:
        """Send what waits; without followers confirm reads at once."""
        self.replication.flush()
        self._confirm_reads()


def require_leader(role: object, leader: int) -> Leader:
    """Return the role of a leader.

    Raises:
        NotLeaderError: the node has another role.
    """
    if not isinstance(role, Leader):
        raise NotLeaderError(leader)
    return role
