"""What must hold in a group at any time (Raft paper, figure 3), looked at after every event of the simulation.

Nothing here trusts a node: what is durable is what was handed to its storage when its disk had nothing unsynced left, and a restart
must find it. Each look costs little where nothing changed, and else what changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from hypercache.raft import EntryType, SnapshotMeta, State
from hypercache.raft.configuration import Configuration, decode_configuration
from hypercache.raft.quorum import majority
from hypercache.raft.snapshot import HAVE_ALL
from hypercache.testing.shadow import COVERED, MISSING, Shadow
from hypercache.wire.messages import AppendResponse, InstallSnapshot, SnapshotResponse, VoteRequest, VoteResponse

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hypercache.raft import HardState, Outbound, Raft, Ready
    from hypercache.wire.messages import LogEntry

_PROMISES: Final = frozenset({VoteResponse, VoteRequest, AppendResponse, SnapshotResponse})


class InvariantError(AssertionError):
    """A promise of Raft, or of what is built on it, does not hold."""


class Watched(Protocol):
    """A node that lives."""

    id: int

    @property
    def raft(self) -> Raft:
        """Its core."""

    @property
    def applied(self) -> int:
        """What it says that it has applied."""

    @property
    def digest(self) -> int:
        """What it has applied (`hypercache.testing.watched`)."""

    @property
    def synced(self) -> bool:
        """Whether its disk has everything durably."""


class _View:
    """What is known of one node, over all of its lives.

    Attributes:
        identity: another one each time the disk is emptied.
        handed, durable: what its storage was given, and what is on its disk for sure; None before the first life.
        before: what `handed` was before the last write.
        refused: the index of a snapshot that a full disk may have taken or not; 0 for none.
        node: as it lives; None while it does not.
        term, role, commit, applied, snapshot: of this life, as last seen.
        numbers: what was applied since the last look, by index.
        adopted: whether a snapshot took the place of applying.
        unsynced: what was written and is not durable for sure.
        installs: the index of each whole snapshot that it was offered, by sender and exchange.
    """

    def __init__(self) -> None:
        self.identity = 0
        self.handed: Shadow | None = None
        self.before: Shadow | None = None
        self.refused = 0
        self.durable: Shadow | None = None
        self.begin(None)

    def begin(self, node: Watched | None) -> None:
        self.node = node
        self.term = self.commit = self.applied = 0
        self.role: object = None
        self.snapshot: SnapshotMeta | None = None
        self.numbers: dict[int, int] = {}
        self.adopted = True
        self.unsynced: list[Ready] = []
        self.installs: dict[tuple[int, int], int] = {}


class Invariants:
    """The promises of one group.

    Args:
        configuration: the founding one.

    Attributes:
        violation: the first one that was found; None where all holds.
        committed: the terms of all entries that any node took for committed, by index.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.violation: InvariantError | None = None
        self.committed = [0]
        self._committed_in = [0]
        self._configurations: list[tuple[int, Configuration]] = [(0, configuration)]
        self._views: dict[int, _View] = {}
        self._entries: dict[tuple[int, int], tuple[LogEntry, int]] = {}
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int, int], int] = {}
        self._outcomes = [0]
        self._digests: dict[int, int] = {0: 0}
        self._applied_at: dict[int, int] = {}
        self._refused: set[int] = set()

    def broken(self, text: str) -> NoReturn:
        """Note a violation, and raise it.

        Raises:
            InvariantError: always.
        """
        violation = InvariantError(text)
        if self.violation is None:
            self.violation = violation
        raise violation

    def gone(self) -> set[int]:
        """Return the nodes that were members by what is committed, and are no more."""
        known = {node for _, configuration in self._configurations for node in configuration.members()}
        return known.difference(self._configurations[-1][1].members())

    # Life and death

    def started(self, node: Watched, state: HardState | None, snapshot: SnapshotMeta, entries: Sequence[LogEntry]) -> None:
        """Compare what a node found on its disk with what must be there, and watch its new life."""
        view = self._views.setdefault(node.id, _View())
        found = Shadow(state, snapshot, entries)
        if view.durable is not None and view.handed is not None:
            self._recovered(node.id, view, found)
        view.durable, view.handed = found, found.copy()
        view.refused = 0
        view.begin(node)

    def ended(self, node: int) -> None:
        """A node died."""
        self._views.setdefault(node, _View()).begin(None)

    def emptied(self, node: int) -> None:
        """A node lost its disk on purpose, and begins as somebody new."""
        view = self._views.setdefault(node, _View())
        view.identity += 1
        view.durable = view.handed = None

    def _recovered(self, node: int, view: _View, found: Shadow) -> None:
        durable, handed = view.durable, view.handed
        assert durable is not None
        assert handed is not None
        kept, now = durable.state, found.state
        if (now.term, now.vote) != (kept.term, kept.vote) and not (
            now.term > kept.term or (now.term == kept.term and not kept.vote)
        ):
            self.broken(f"node {node} forgot its vote: it had {kept}, and found {now}")
        if found.base < durable.base:
            self.broken(f"node {node} lost its snapshot of entry {durable.base}")
        replaced = handed.base > durable.base
        if (replaced and found.base >= handed.base) or (view.refused and found.base >= view.refused):
            return
        # What was replaced by something that is not durable yet may be there or not.
        conflict = durable.first_conflict(handed)
        if replaced or conflict > min(durable.last, handed.last):
            conflict = durable.last + 1
        for index in range(durable.base + 1, conflict):
            term = found.term_of(index)
            if term not in (durable.term_of(index), COVERED):
                self.broken(f"node {node} lost entry {index}: it had term {durable.term_of(index)} durably, and found {term}")

    # What the storage is told

    def writing(self, node: int, readies: Sequence[Ready]) -> None:
        """See what is handed to a storage: two logs that hold an entry are the same up to it (log matching)."""
        view = self._views[node]
        handed = view.handed
        assert handed is not None
        view.before = handed.copy()
        for ready in readies:
            handed.take(ready)
            index = ready.first_index
            for entry in ready.entries:
                prev = handed.term_of(index - 1)
                known, known_prev = self._entries.setdefault((index, entry.term), (entry, prev))
                if known is not entry and known != entry:
                    self.broken(
                        f"log matching: entry {index} of term {entry.term} is {entry} on node {node}, and {known} elsewhere"
                    )
                if prev != known_prev and COVERED not in (prev, known_prev):
                    self.broken(
                        f"log matching: entry {index} of term {entry.term} follows term {prev} on node {node}, not {known_prev}"
                    )
                index += 1

    def unwritten(self, node: int, readies: Sequence[Ready]) -> None:
        """Forget what a storage could not write: only a snapshot that was whole may be there."""
        view = self._views[node]
        view.handed = view.before
        view.refused = max((ready.snapshot.index for ready in readies if ready.snapshot is not None), default=view.refused)

    def written(self, node: int, readies: Sequence[Ready]) -> None:
        """Count what a storage has written as durable, if its disk agrees."""
        view = self._views[node]
        assert view.durable is not None
        assert view.node is not None
        view.refused = 0
        view.unsynced += readies
        if view.node.synced:
            for ready in view.unsynced:
                view.durable.take(ready)
            view.unsynced.clear()

    # What is said

    def offered(self, node: int, sender: int, outbound: Outbound) -> None:
        """A message is about to reach a node."""
        message = outbound.message
        if type(message) is InstallSnapshot:
            self._views[node].installs[sender, outbound.exchange] = message.last_included_index

    def sent(self, node: int, outbound: Outbound) -> None:
        """No vote and no success leaves before the disk has what it promises; one vote a term."""
        message = outbound.message
        if type(message) not in _PROMISES:
            return
        view = self._views[node]
        durable = view.durable
        assert durable is not None
        state = durable.state
        match message:
            case VoteResponse(term, True):
                self._voted(node, view, term, outbound.to)
            case VoteRequest(term, candidate):
                self._voted(node, view, term, candidate)
            case AppendResponse(term, True, index, entry_term):
                if state.term < term or (state.term == term and not durable.holds(index, entry_term)):
                    self.broken(f"node {node} says that it has entry {index} of term {entry_term} before its disk has it")
            case SnapshotResponse(term, True, offset) if offset == HAVE_ALL:
                index = view.installs.get((outbound.to, outbound.exchange), 0)
                if state.term < term or (state.term == term and durable.term_of(index) == MISSING):
                    self.broken(f"node {node} says that it has the snapshot of entry {index} before its disk has it")

    def _voted(self, node: int, view: _View, term: int, candidate: int) -> None:
        assert view.durable is not None
        state = view.durable.state
        if state.term < term or (state.term == term and state.vote != candidate):
            self.broken(f"node {node} votes for {candidate} in term {term} before its disk has it: {state}")
        if self._votes.setdefault((node, view.identity, term), candidate) != candidate:
            self.broken(f"node {node} votes for {candidate} in term {term} after it voted for another")

    # What the state machine is told

    def prepared(self, node: int, number: int, already: bool) -> None:
        """The leader prepares a proposal once, before it enters its log."""
        if already:
            self.broken(f"node {node} prepares proposal {number}, which is prepared")

    def applied(self, node: int, index: int, number: int, prepared: bool) -> None:
        """Each proposal is applied once, at one place."""
        if not prepared:
            self.broken(f"node {node} applies proposal {number}, which no leader prepared")
        if number in self._refused:
            self.broken(f"proposal {number}, which was refused, is applied at {index}")
        at = self._applied_at.setdefault(number, index)
        if at != index:
            self.broken(f"proposal {number} is applied twice: at {at}, and by node {node} at {index}")
        self._views[node].numbers[index] = number

    def refused(self, number: int) -> None:
        """Who proposed was told that it was certainly not done."""
        if number in self._applied_at:
            self.broken(f"proposal {number} is refused, and was applied at {self._applied_at[number]}")
        self._refused.add(number)

    def adopted(self, node: int) -> None:
        """A snapshot takes the place of what a node had applied."""
        view = self._views[node]
        view.adopted = True
        view.numbers.clear()

    # After every event

    def check(self, node: Watched) -> None:
        """Look at what an event changed on a node."""
        view = self._views[node.id]
        raft = node.raft
        log = raft.log
        if log.snapshot is not view.snapshot:
            self._snapshot_changed(node.id, view, log.snapshot)
        if log.committed != view.commit:
            self._commit_moved(node.id, view, raft)
        if raft.role is not view.role or raft.term != view.term:
            self._role_changed(node.id, view, raft)
        if node.applied != view.applied or view.adopted:
            self._applied_moved(node, view)

    def _snapshot_changed(self, node: int, view: _View, snapshot: SnapshotMeta) -> None:
        view.snapshot = snapshot
        index = snapshot.index
        if not index:
            return
        if index >= len(self.committed) or snapshot.term != self.committed[index]:
            self.broken(f"node {node} has a snapshot of entry {index} of term {snapshot.term}, which was never committed so")
        at, configuration = next(known for known in reversed(self._configurations) if known[0] <= index)
        # Who was added later was never told of the founding one: it stands in no entry.
        unknown = not at and not snapshot.configuration.voters and node not in configuration.voters
        if snapshot.configuration != configuration and not unknown:
            self.broken(f"node {node}'s snapshot of entry {index} says {snapshot.configuration}, not {configuration}")

    def _commit_moved(self, node: int, view: _View, raft: Raft) -> None:
        log = raft.log
        new = log.committed
        if new < view.commit:
            self.broken(f"node {node}'s commit index falls from {view.commit} to {new}")
        committed = self.committed
        first_new = 0
        for index in range(max(view.commit + 1, log.first_index), new + 1):
            term = log.term_of(index)
            if index < len(committed):
                if term != committed[index]:
                    self.broken(f"node {node} commits term {term} at {index}, where term {committed[index]} was committed")
                continue
            first_new = first_new or index
            if index > len(committed):
                self.broken(f"node {node} commits entry {index} before its predecessors were")
            committed.append(term)
            self._committed_in.append(raft.term)
            entry = log.entries(index, index)[0]
            if entry.type == EntryType.CONFIGURATION:
                self._configurations.append((index, decode_configuration(entry.data)))
        view.commit = new
        if first_new:
            self._committed_safely(node, raft, new)

    def _committed_safely(self, node: int, raft: Raft, index: int) -> None:
        """What is committed is on the disks of a majority, and nobody who lacks it can be elected."""
        log = raft.log
        term = self.committed[index]
        holding = [each for each, view in self._views.items() if view.durable is not None and view.durable.holds(index, term)]
        latest = log.configuration
        if not _agree(latest, holding):
            # The end of a joint configuration is appended in the event that commits its beginning.
            before = log.configuration_at(index)
            if latest.joint or log.configuration_index <= index or not _agree(before, holding):
                self.broken(f"node {node} commits entry {index} of term {term}, which only {holding} have durably of {latest}")
        for candidate, view in self._views.items():
            if candidate in holding or view.durable is None or not latest.votes(candidate):
                continue
            place = view.durable.last_term, view.durable.last
            voting = [
                each
                for each, other in self._views.items()
                if other.durable is None or (other.durable.last_term, other.durable.last) <= place
            ]
            if _agree(latest, voting):
                self.broken(f"node {node} commits entry {index} of term {term}; {candidate}, which lacks it, can still be elected")
        for each, view in self._views.items():
            other = view.node
            if other is not None and other.raft.term > raft.term and other.raft.state is State.LEADER:
                self._complete(each, other.raft)

    def _role_changed(self, node: int, view: _View, raft: Raft) -> None:
        if raft.term < view.term:
            self.broken(f"node {node}'s term falls from {view.term} to {raft.term}")
        if raft.state is State.LEADER and raft.role is not view.role:
            other = self._leaders.setdefault(raft.term, node)
            if other != node:
                self.broken(f"election safety: nodes {other} and {node} lead term {raft.term}")
            self._complete(node, raft)
        view.term, view.role = raft.term, raft.role

    def _complete(self, node: int, raft: Raft) -> None:
        """A leader has all that was committed in earlier terms (leader completeness)."""
        index = len(self.committed) - 1
        while self._committed_in[index] >= raft.term:
            index -= 1
        if index >= raft.log.first_index - 1 and raft.log.term_of(index) != self.committed[index]:
            self.broken(f"leader completeness: node {node} leads term {raft.term} without entry {index}, which is committed")

    def _applied_moved(self, node: Watched, view: _View) -> None:
        applied = node.applied
        durable = view.durable
        assert durable is not None
        if applied > view.commit:
            self.broken(f"node {node.id} has applied up to {applied}, but committed only up to {view.commit}")
        if applied < view.applied:
            self.broken(f"node {node.id} applied {view.applied}, and then {applied}")
        if durable.term_of(applied) == MISSING:
            self.broken(f"node {node.id} has applied entry {applied}, which its disk does not have")
        if not view.adopted:
            outcomes = self._outcomes
            for index in range(view.applied + 1, applied + 1):
                number = view.numbers.pop(index, 0)
                if index == len(outcomes):
                    outcomes.append(number)
                elif index > len(outcomes) or outcomes[index] != number:
                    self.broken(f"state machine safety: node {node.id} applies proposal {number} at {index}, others do not")
            if view.numbers:
                self.broken(f"node {node.id} applies out of turn: {sorted(view.numbers)} when it is at {applied}")
        view.adopted = False
        view.applied = applied
        digest = node.digest
        if self._digests.setdefault(applied, digest) != digest:
            self.broken(f"state machine safety: node {node.id}'s state as of {applied} is not that of others")


def _agree(configuration: Configuration, nodes: Collection[int]) -> bool:
    """Whether nodes are a majority, of both sides where a configuration is joint."""
    return all(
        sum(node in nodes for node in side) >= majority(len(side))
        for side in (configuration.voters, configuration.outgoing)
        if side
    )
