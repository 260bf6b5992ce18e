"""Drivers of one group on a clock that is advanced, with disks whose fsync a test lets happen."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from hypercache.consensus.driver import Consensus, ConsensusLimits
from hypercache.raft import Configuration, HardState, Options, Raft, SnapshotMeta, snapshot_header
from hypercache.wire.messages import LogEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from twisted.internet.defer import Deferred

    from hypercache.consensus.contracts import Storage
    from hypercache.raft import Outbound, Ready

TICK_SECONDS = 0.1
LATENCY_SECONDS = 0.001


def outcome(deferred: Deferred[Any]) -> Any:
    """Return what a Deferred has fired with, a failure's exception too."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "it has not fired"
    return found[0].value if isinstance(found[0], Failure) else found[0]


class Disk:
    """What a node keeps: `hypercache.consensus.contracts.Storage` as plain fields."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self.snapshot = SnapshotMeta()
        self.pieces: list[bytes] = []
        self.entries: list[LogEntry] = []
        self.first = 1
        self.incoming = b""
        self.error: Exception | None = None
        self.writes = 0

    def write(self, readies: Sequence[Ready]) -> None:
        if self.error is not None:
            raise self.error
        self.writes += 1
        for ready in readies:
            for chunk in ready.chunks:
                self.incoming = self.incoming[: chunk.offset] + chunk.data
            if ready.snapshot is not None:
                self.snapshot = ready.snapshot
                length = 4 + int.from_bytes(self.incoming[:4], "big")
                self.pieces = [self.incoming[length:]]
                self.entries, self.first = [], ready.snapshot.index + 1
            self.hard_state = ready.hard_state or self.hard_state
            if ready.entries:
                self.entries[ready.first_index - self.first :] = ready.entries

    def append(self, readies: Sequence[Ready]) -> None:
        return None

    def synced(self, error: BaseException | None) -> None:
        raise AssertionError("nothing was appended")

    def save_snapshot(self, snapshot: SnapshotMeta, stream: Iterable[bytes]) -> None:
        self.pieces = list(stream)
        self.snapshot = snapshot

    def load_snapshot(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def compact(self, index: int) -> None:
        if index >= self.first:
            del self.entries[: index + 1 - self.first]
            self.first = index + 1

    def read(self, index: int, offset: int, max_bytes: int) -> tuple[bytes, bool] | None:
        if index != self.snapshot.index:
            return None
        stream = snapshot_header(self.snapshot.configuration) + b"".join(self.pieces)
        return stream[offset : offset + max_bytes], offset + max_bytes >= len(stream)


class HeldJournal:
    """Does work when a test lets it, or at once."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._jobs: list[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = []
        self.held = False

    def run(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self._jobs.append((work, done))
        if not self.held:
            self._clock.callLater(LATENCY_SECONDS, self.release)

    def write(self, storage: Storage, readies: Sequence[Ready], done: Callable[[Any, BaseException | None], None]) -> None:
        self.run(partial(storage.write, readies), done)

    def release(self) -> None:
        """Do what waits."""
        jobs, self._jobs = self._jobs, []
        for work, done in jobs:
            try:
                result = work()
            except Exception as error:
                done(None, error)
            else:
                done(result, None)

    def stop(self) -> None:
        self._jobs.clear()


class Notes:
    """A state machine that keeps what it is given, in order; its answers count."""

    def __init__(self) -> None:
        self.notes: list[bytes] = []
        self.prepared = 0
        self.configurations: list[tuple[int, ...]] = []
        self.strangers: set[int] = set()
        self.forgotten: tuple[int, ...] = ()

    def prepare(self, data: bytes) -> bytes:
        self.prepared += 1
        return data

    def apply(self, index: int, client_id: int, data: bytes) -> bytes:
        self.notes.append(data)
        return b"%d" % len(self.notes)

    def membership_changed(self, index: int, voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
        self.configurations.append(voters)

    def knows(self, client_id: int) -> bool:
        return client_id not in self.strangers

    def take_forgotten(self) -> tuple[int, ...]:
        forgotten, self.forgotten = self.forgotten, ()
        return forgotten

    def freeze(self) -> Iterable[bytes]:
        return list(self.notes)

    def load(self, stream: Iterable[bytes]) -> list[bytes]:
        return [b"".join(stream)]

    def adopt(self, loaded: list[bytes]) -> None:
        self.notes = loaded


class Member:
    """One node: its disk outlives its driver."""

    def __init__(self, group: Group, node_id: int, configuration: Configuration, options: Options, limits: ConsensusLimits) -> None:
        self.group = group
        self.node_id = node_id
        self.disk = Disk()
        self.disk.snapshot = SnapshotMeta(configuration=configuration)
        self.failures: list[BaseException] = []
        self.sent: list[Outbound] = []
        self._options = options
        self._limits = limits
        self._boot = 0
        self.start()

    def start(self) -> None:
        self._boot += 1
        disk = self.disk
        self.machine = Notes()
        self.journal = HeldJournal(self.group.clock)
        raft = Raft(
            self.node_id,
            self._options,
            random.Random(self.node_id),
            disk,
            hard_state=disk.hard_state,
            snapshot=disk.snapshot,
            entries=disk.entries[max(0, disk.snapshot.index + 1 - disk.first) :],
        )
        self.driver = Consensus(
            raft,
            boot=self._boot,
            storage=disk,
            journal=self.journal,
            snapshot_journal=HeldJournal(self.group.clock),
            machine=self.machine,
            transport=self,
            clock=self.group.clock,
            limits=self._limits,
            failed=self.failures.append,
        )
        self.driver.start()

    def kill(self) -> None:
        self.driver.stop()
        self.journal.stop()

    def send(self, outbound: Outbound) -> None:
        self.sent.append(outbound)
        self.group.carry(self.node_id, outbound)

    def flush(self) -> None:
        """All is on its way."""


class Group:
    """Members whose messages take a millisecond."""

    def __init__(
        self,
        size: int,
        *,
        options: Options | None = None,
        snapshot_after: int = 1 << 20,
        keep: int = 0,
        patience: float = 5.0,
    ) -> None:
        self.clock = Clock()
        self.cut: set[int] = set()
        configuration = Configuration(tuple(range(1, size + 1)))
        limits = ConsensusLimits(tick=TICK_SECONDS, snapshot_after=snapshot_after, keep=keep, patience=patience)
        self.members = {
            node_id: Member(self, node_id, configuration, options or Options(), limits) for node_id in configuration.voters
        }

    def __getitem__(self, node_id: int) -> Member:
        return self.members[node_id]

    def carry(self, sender: int, outbound: Outbound) -> None:
        if sender not in self.cut and outbound.to not in self.cut:
            self.clock.callLater(LATENCY_SECONDS, self._arrive, sender, outbound)

    def _arrive(self, sender: int, outbound: Outbound) -> None:
        if outbound.to not in self.cut:
            self.members[outbound.to].driver.step(sender, outbound.message, outbound.exchange)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / LATENCY_SECONDS)):
            self.clock.advance(LATENCY_SECONDS)

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        for _ in range(round(seconds / LATENCY_SECONDS)):
            if condition():
                return
            self.clock.advance(LATENCY_SECONDS)
        assert condition(), f"did not come true within {seconds:g} s"

    @property
    def leader(self) -> Member:
        leaders = [member for member in self.members.values() if member.driver.leads and member.node_id not in self.cut]
        return max(leaders, key=lambda member: member.driver.raft.term)

    def elect(self, node_id: int) -> Member:
        self.run(TICK_SECONDS)
        self[node_id].driver.campaign()
        self.until(lambda: self[node_id].driver.leads)
        self.until(lambda: all(member.driver.raft.leader == node_id for member in self.members.values()))
        return self[node_id]
