"""One run from one number: which group, which faults, which load; and what is said when a promise breaks."""

from __future__ import annotations

import random
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from hypercache.consensus.driver import ConsensusLimits
from hypercache.raft import Options
from hypercache.testing.cells import CellOperation
from hypercache.testing.group import SimulatedGroup
from hypercache.testing.invariants import InvariantError
from hypercache.testing.load import CellLoad
from hypercache.testing.nemesis import FAULT_KINDS, Faults, Nemesis
from hypercache.testing.node import NodeSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.testing.node import SimulatedNode

TRACE_EVENTS: Final = 200
_CALM_SECONDS: Final = 10.0
_TICK_SECONDS: Final = 0.5
_ELECTION_TICKS: Final = 4
_LEASE_TICKS: Final = 3
_PATIENCE_SECONDS: Final = 3.0
_ATTEMPTS: Final = 4
_SPARE: Final = tuple(range(6, 14))


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is like.

    Attributes:
        voters: who founds the group.
        settings: how the nodes are made.
        faults: what goes wrong.
        spare: ids of nodes that may be added.
        clients: how many ask at a time.
        think_seconds: how long each waits between two operations, on the average.
        jitter: how much longer than a millisecond a message may take, seconds.
    """

    voters: tuple[int, ...]
    settings: NodeSettings
    faults: Faults
    spare: tuple[int, ...] = ()
    clients: int = 4
    think_seconds: float = 0.5
    jitter: float = 0.004


ScenarioMaker: TypeAlias = "Callable[[int], Scenario]"
"""Draws a scenario from a seed."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of a run.

    Attributes:
        seed: its number.
        answered: operations that were answered.
        committed: entries.
        terms: the highest term.
        sent: messages.
        digest: of all events; 0 where they were not traced.
    """

    seed: int
    answered: int
    committed: int
    terms: int
    sent: int
    digest: int


class SimulationError(AssertionError):
    """A run broke a promise.

    Args:
        seed: which run.
        seconds: how long it was to last.
        violation: what broke.
        events: what happened last.
    """

    def __init__(self, seed: int, seconds: float, violation: str, events: list[str]) -> None:
        lines = [f"seed {seed}: {violation}", "the last events:", *(f"  {event}" for event in events)]
        lines.append(f"again: python -m hypercache.testing --seed {seed} --seconds {seconds:g}")
        super().__init__("\n".join(lines))
        self.seed = seed
        self.violation = violation


class Trace:
    """The events of a run as sentences: the last of them, and a digest of all.

    Args:
        clock: returns the time.
        keep: how many are kept.
    """

    def __init__(self, clock: Callable[[], float], keep: int = TRACE_EVENTS) -> None:
        self.events: deque[str] = deque(maxlen=keep)
        self.digest = 0
        self._clock = clock

    def __call__(self, text: str) -> None:
        """Note an event."""
        line = f"{self._clock():.6f} {text}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        self.events.append(line)


def scenario_of(seed: int) -> Scenario:
    """Return what the run of a number is like: most are mixed, some go for one kind of trouble."""
    return (mixed, mixed, mixed, mixed, mixed, elections, partitions, leases, memberships)[seed % 9](seed)


def mixed(seed: int) -> Scenario:
    """A bit of everything; each run leaves some kinds of faults out, so that others have more room."""
    chance = random.Random(seed)
    weights = {kind: 0.0 if chance.random() < 0.35 else getattr(Faults(), kind) for kind in FAULT_KINDS}
    lease = chance.random() < 0.2
    options = Options(
        election_ticks=_ELECTION_TICKS,
        pre_vote=chance.random() < 0.85,
        check_quorum=lease or chance.random() < 0.85,
        lease_ticks=_LEASE_TICKS if lease else 0,
        append_max_bytes=chance.choice((200, 1000, 100_000)),
        inflight_max_count=chance.choice((1, 4, 64)),
        chunk_bytes=1024,
    )
    faults = Faults(
        every=chance.choice((1.0, 2.0, 4.0)),
        jumps=not lease,
        loss=chance.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
        doubling=chance.choice((0.0, 0.1)),
        stray=chance.choice((0.0, 0.05)),
        **weights,
    )
    return Scenario(
        voters=chance.choice(((1, 2, 3), (1, 2, 3), (1, 2, 3), (1, 2, 3, 4, 5))),
        settings=_settings(options, chance.choice((600, 2000, 100_000)), chance.choice((0, 5, 50)), chance.choice((1024, 8192))),
        faults=faults,
        spare=_SPARE[: chance.randrange(4)],
    )


def elections(seed: int) -> Scenario:
    """Leaders come and go: five nodes, slow disks, messages that come late, and nobody asks before a campaign."""
    chance = random.Random(seed)
    options = Options(
        election_ticks=_ELECTION_TICKS,
        pre_vote=False,
        check_quorum=False,
        append_max_bytes=1,
        inflight_max_count=chance.choice((1, 4)),
        chunk_bytes=1024,
    )
    faults = only(
        every=0.7, crash=2.0, strike=2.0, isolate=2.0, slow=2.0, transfer=1.0, cut=1.0, loss=chance.choice((0.0, 0.2)), stray=0.3
    )
    return Scenario(voters=(1, 2, 3, 4, 5), settings=_settings(options, 100_000), faults=faults, jitter=chance.choice((0.02, 0.4)))


def partitions(seed: int) -> Scenario:
    """Leaders are cut off and do not know it, for nothing tells them; everybody is read from."""
    chance = random.Random(seed)
    options = Options(election_ticks=_ELECTION_TICKS, pre_vote=chance.random() < 0.5, check_quorum=False, chunk_bytes=1024)
    faults = only(every=2.0, isolate=3.0, cut=1.0, pause=1.0, crash=1.5, transfer=0.5)
    return Scenario(voters=(1, 2, 3), settings=_settings(options, 2000), faults=faults, think_seconds=0.4)


def leases(seed: int) -> Scenario:
    """Reads rest on leases while leaders are cut off, sleep and hand over."""
    chance = random.Random(seed)
    options = Options(election_ticks=_ELECTION_TICKS, lease_ticks=_LEASE_TICKS, chunk_bytes=1024)
    faults = only(
        every=1.0, isolate=2.0, pause=1.0, jump=0.5, transfer=3.0, jumps=False, loss=chance.choice((0.0, 0.3)), stray=0.05
    )
    return Scenario(voters=(1, 2, 3), settings=_settings(options, 2000), faults=faults, think_seconds=0.25)


def memberships(seed: int) -> Scenario:
    """Members change all the time, while leaders are cut off and die."""
    chance = random.Random(seed)
    options = Options(election_ticks=_ELECTION_TICKS, chunk_bytes=1024, append_max_bytes=chance.choice((1, 100_000)))
    faults = only(every=0.8, burst=0.5, members=4.0, isolate=1.5, cut=1.0, crash=1.0, strike=1.0, storm=0.3)
    return Scenario(
        voters=chance.choice(((1, 2, 3), (1, 2, 3, 4, 5))), settings=_settings(options, 600, keep=0), faults=faults, spare=_SPARE
    )


def _settings(options: Options, snapshot_after: int, keep: int = 5, segment_bytes: int = 8192) -> NodeSettings:
    limits = ConsensusLimits(tick=_TICK_SECONDS, snapshot_after=snapshot_after, keep=keep, patience=_PATIENCE_SECONDS)
    return NodeSettings(options=options, limits=limits, segment_bytes=segment_bytes)


def only(**given: Any) -> Faults:
    """Return faults of the given kinds alone; what is no kind is a field of `Faults` too."""
    return Faults(**dict.fromkeys(FAULT_KINDS, 0.0) | given)


def simulate(seed: int, seconds: float = 60.0, scenario: Scenario | None = None, *, traced: bool = False) -> Outcome:
    """Run one simulation; the last of its seconds are calm, and all must be well then.

    Args:
        seed: its number.
        seconds: how long it lasts, of virtual time.
        scenario: what it is like; by default the seed says.
        traced: whether every event is written down from the beginning.

    Raises:
        SimulationError: a promise broke.
    """
    scenario = scenario or scenario_of(seed)
    group = SimulatedGroup(seed, scenario.voters, scenario.settings)
    trace = None
    if traced:
        trace = group.trace = group.network.trace = Trace(group.clock.seconds)
    try:
        load = play(group, scenario, seconds)
    except InvariantError as violation:
        if trace is None:
            # The same again, word for word.
            simulate(seed, seconds, scenario, traced=True)
            raise SimulationError(seed, seconds, f"{violation}, but not when it is traced", []) from violation
        raise SimulationError(seed, seconds, str(violation), list(trace.events)) from violation
    terms = max(node.raft.term for node in group.nodes.values())
    committed = len(group.invariants.committed) - 1
    return Outcome(seed, load.answered, committed, terms, group.network.sent, trace.digest if trace else 0)


def play(group: SimulatedGroup, scenario: Scenario, seconds: float, load: CellLoad | None = None) -> CellLoad:
    """Play a scenario on a group that was not started; return what the clients did.

    Args:
        group: the group.
        scenario: what goes wrong, and what is asked; the group is made already.
        seconds: how long it lasts, of virtual time; the last of them are calm, and all must be well then.
        load: the clients, where they are made already.

    Raises:
        InvariantError: a promise broke.
    """
    load = load or CellLoad(group, scenario.clients, think_seconds=scenario.think_seconds)
    nemesis = Nemesis(group, scenario.faults, scenario.spare)
    group.network.jitter = scenario.jitter
    group.start()
    load.start()
    nemesis.start()
    group.run(seconds - _CALM_SECONDS)
    nemesis.stop()
    load.stop()
    _settle(group, load)
    return load


def _settle(group: SimulatedGroup, load: CellLoad) -> None:
    """With nothing broken a group soon has a leader, answers everybody, and all have applied the same.

    Raises:
        InvariantError: it does not.
    """
    if not group.run_until(lambda: _is_settled(group.leader), _CALM_SECONDS):
        group.invariants.broken(f"nobody leads {_CALM_SECONDS:g} s after everything was put right")
    # Who was removed while it was cut off does not know, and without pre-vote disturbs the others for ever.
    leading = group.leader
    assert leading is not None
    for node in list(group.nodes.values()):
        if node.id not in leading.raft.configuration.members():
            node.die("it was removed")
    for _ in range(_ATTEMPTS):
        group.run(_PATIENCE_SECONDS)
        leader = group.leader
        if leader is None:
            continue
        before = load.answered
        load.ask(0, leader.id, CellOperation.SET, 0)
        load.ask(1, leader.id, None, 0)
        if group.run_until(lambda: load.answered >= before + 2, 2 * _PATIENCE_SECONDS):  # noqa: B023 - it is called here alone
            break
    else:
        group.invariants.broken("a write and a read are not answered though everything was put right")
    assert leader is not None
    members = leader.raft.configuration.members()
    nodes = [node for node in group.nodes.values() if node.alive and node.id in members]
    if not group.run_until(lambda: len({(node.applied, node.digest) for node in nodes}) == 1, _CALM_SECONDS):
        states = {node.id: (node.applied, node.digest) for node in nodes}
        group.invariants.broken(f"the members do not level though everything was put right: {states}")


def _is_settled(leader: SimulatedNode | None) -> bool:
    """Whether a node leads, and no change of members is under way."""
    if leader is None:
        return False
    log = leader.raft.log
    return leader.raft.promotable and not log.configuration.joint and log.configuration_index <= log.committed
