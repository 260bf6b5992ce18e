"""What goes wrong in a simulation, and when: drawn from the seed, each fault with its end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import BusyError, RaftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.testing.group import SimulatedGroup
    from hypercache.testing.node import SimulatedNode

_STRIKE_POINTS: Final = 60
_BURST_SECONDS: Final = (0.002, 0.005, 0.01, 0.03)
FAULT_KINDS: Final = ("crash", "strike", "cut", "isolate", "pause", "jump", "slow", "full", "fail", "storm", "members", "transfer")


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What may go wrong, and how often: weights; 0 for never.

    Attributes:
        every: seconds between two faults, on the average.
        burst: how likely the next one comes at once instead, within the time that a message or a sync takes.
        crash: a node dies and loses what it had not synced.
        strike: a node dies at one of the next points that it passes.
        cut: some nodes are cut off from the others, for both or for one direction.
        isolate: one node is cut off; the leader more often than another.
        pause: a node sleeps.
        jump: a clock jumps ahead or back, or runs at another rate (`jumps`).
        slow: a disk is slow.
        full: a disk is full.
        fail: a disk fails at the next sync: its node dies and starts again.
        storm: the network loses and doubles a lot.
        members: the leader changes the members.
        transfer: the leader hands over.
        jumps: whether clocks jump, and run at rates that no lease can stand; else they are off by 5 % at most.
        loss, doubling, stray: what the network does all the time.
    """

    every: float = 2.0
    burst: float = 0.2
    crash: float = 2.0
    strike: float = 2.0
    cut: float = 2.0
    isolate: float = 2.0
    pause: float = 1.0
    jump: float = 0.5
    slow: float = 1.0
    full: float = 0.5
    fail: float = 0.3
    storm: float = 1.0
    members: float = 1.5
    transfer: float = 1.0
    jumps: bool = True
    loss: float = 0.0
    doubling: float = 0.0
    stray: float = 0.0


class Nemesis:
    """Breaks things until it is told to stop, and then puts all right.

    Args:
        group: what it breaks.
        faults: how.
        spare: ids of nodes that may be added.
    """

    def __init__(self, group: SimulatedGroup, faults: Faults, spare: tuple[int, ...] = ()) -> None:
        self._group = group
        self._faults = faults
        self._spare = list(spare)
        self._random = group.random
        self._active = False
        weights = {kind: getattr(faults, kind) for kind in FAULT_KINDS}
        self._kinds: list[Callable[[], None]] = [getattr(self, f"_{kind}") for kind, weight in weights.items() if weight]
        self._weights = [weight for weight in weights.values() if weight]
        group.deaths.append(self._died)

    def start(self) -> None:
        """Begin."""
        self._active = True
        self._calm_network()
        self._next()

    def stop(self) -> None:
        """Put everything right: whoever is dead starts again, all links are whole, disks are fast and empty enough."""
        group = self._group
        self._active = False
        group.note("everything is put right")
        group.network.heal()
        for node in group.nodes.values():
            node.points.spare()
            node.slowness = 1.0
            node.disk.full = False
            node.disk.fail_syncs = 0
            node.wake()
            if not node.alive and node.id not in group.invariants.gone():
                node.start()

    def _next(self) -> None:
        if self._kinds:
            burst = self._random.random() < self._faults.burst
            delay = self._random.choice(_BURST_SECONDS) if burst else self._random.expovariate(1.0) * self._faults.every
            self._group.clock.schedule(delay, self._strike_next)

    def _strike_next(self) -> None:
        if self._active:
            self._random.choices(self._kinds, self._weights)[0]()
            self._next()

    # Choices

    def _some_node(self, leader: float = 0.4) -> SimulatedNode | None:
        """Return a running node: the leader with at least that likelihood."""
        group = self._group
        if self._random.random() < leader and group.leader is not None:
            return group.leader
        running = [node for node in group.nodes.values() if node.running]
        return self._random.choice(running) if running else None

    def _may_fall(self) -> bool:
        """Whether one more may go: mostly a majority stays."""
        nodes = self._group.nodes.values()
        return sum(not node.running for node in nodes) * 2 + 2 < len(nodes) or self._random.random() < 0.15

    def _lasts(self, seconds: float, end: Callable[[], None]) -> None:
        """End a fault after a while."""

        def ends() -> None:
            if self._active:
                end()

        self._group.clock.schedule(self._random.uniform(0.1, 1.0) * seconds, ends)

    # Faults

    def _died(self, node: SimulatedNode, _: str) -> None:
        def again() -> None:
            if self._active and not node.alive and node.id not in self._group.invariants.gone():
                self._group.note(f"node {node.id} starts")
                node.start()

        self._group.clock.schedule(self._random.choice((0.05, 0.3, 2.0, 5.0)), again)

    def _crash(self) -> None:
        node = self._some_node()
        if node is not None and self._may_fall():
            node.die("killed")

    def _strike(self) -> None:
        node = self._some_node()
        if node is not None and self._may_fall():
            node.points.strike(1 + self._random.randrange(_STRIKE_POINTS))

    def _cut(self) -> None:
        group = self._group
        ids = list(group.nodes)
        self._random.shuffle(ids)
        size = self._random.randrange(1, len(ids))
        self._separate(ids[:size], ids[size:])

    def _isolate(self) -> None:
        node = self._some_node()
        if node is not None:
            self._separate([node.id], list(self._group.nodes))

    def _separate(self, some: list[int], others: list[int]) -> None:
        network = self._group.network
        one_way = self._random.random() < 0.3
        self._group.note(f"{some} and {others} are cut{' one way' if one_way else ''}")
        pairs = network.separate(some, others, one_way=one_way)
        self._lasts(8.0, lambda: network.mend(pairs))

    def _pause(self) -> None:
        node = self._some_node()
        if node is not None and self._may_fall():
            self._group.note(f"node {node.id} sleeps")
            node.sleep()
            self._lasts(5.0, node.wake)

    def _jump(self) -> None:
        node = self._some_node()
        if node is None:
            return
        random = self._random
        if not self._faults.jumps or random.random() < 0.5:
            node.rate = random.uniform(0.7, 1.4) if self._faults.jumps else random.uniform(0.95, 1.05)
            node.time.set_rate(node.rate)
        else:
            node.time.jump(random.uniform(-2.0, 4.0))

    def _slow(self) -> None:
        node = self._some_node()
        if node is not None:
            node.slowness = self._random.choice((10.0, 50.0, 200.0))

            def fast() -> None:
                node.slowness = 1.0

            self._lasts(6.0, fast)

    def _full(self) -> None:
        node = self._some_node()
        if node is not None:
            self._group.note(f"node {node.id}'s disk is full")
            node.disk.full = True

            def empty() -> None:
                node.disk.full = False

            self._lasts(6.0, empty)

    def _fail(self) -> None:
        node = self._some_node()
        if node is not None and self._may_fall():
            node.disk.fail_syncs = 1

    def _storm(self) -> None:
        network = self._group.network
        network.loss = self._random.choice((0.1, 0.2, 0.3))
        network.doubling = 0.2
        network.stray = 0.2
        self._lasts(6.0, self._calm_network)

    def _calm_network(self) -> None:
        network, faults = self._group.network, self._faults
        network.loss, network.doubling, network.stray = faults.loss, faults.doubling, faults.stray

    def _members(self) -> None:
        """Let the leader change the members: whom it adds, promotes and removes is chance."""
        group, random = self._group, self._random
        leader = group.leader
        if leader is None:
            return
        if self._spare and random.random() < 0.5:
            group.add(self._spare.pop(0)).start()
        # Who left comes back as somebody new only: nothing is known any more of what it was answered.
        gone = group.invariants.gone()
        for each in sorted(gone):
            if random.random() < 0.3:
                group.nodes[each].die("it was removed")
        # Who has no log yet learns first: it votes for nobody, and nobody who needs its vote could be elected.
        ids = [node.id for node in group.nodes.values() if node.alive and node.id not in gone and self._has_learnt(leader, node.id)]
        size = random.choice((1, 2, 3, 3, 3, 4, 5))
        voters = random.sample(ids, min(size, len(ids)))
        if random.random() < 0.5:
            # Most of those who vote go on.
            current = leader.raft.configuration.voters
            voters = sorted({*current, *voters[:1]} - set(random.sample(current, random.randrange(2)))) or voters
        others = [each for each in group.nodes if each not in voters and each not in gone]
        learners = [each for each in others if random.random() < 0.5]
        group.note(f"node {leader.id} is to make {voters} vote and {learners} learn")
        with suppress(RaftError, BusyError):
            leader.enter(self._change, leader, voters, learners)

    def _has_learnt(self, leader: SimulatedNode, node_id: int) -> bool:
        """Whether a node's disk surely has a configuration: the leader's, of which it is a part."""
        progress = leader.raft.progress.get(node_id)
        return node_id == leader.id or (progress is not None and progress.match >= leader.raft.log.configuration_index)

    def _change(self, leader: SimulatedNode, voters: list[int], learners: list[int]) -> None:
        with suppress(RaftError, BusyError):
            leader.consensus.change_members(voters, learners)

    def _transfer(self) -> None:
        leader = self._group.leader
        if leader is not None:
            target = self._random.choice(leader.raft.configuration.voters)
            self._group.note(f"node {leader.id} is to hand over to {target}")
            leader.enter(self._hand_over, leader, target)

    def _hand_over(self, leader: SimulatedNode, target: int) -> None:
        with suppress(RaftError, BusyError):
            leader.consensus.transfer(target)
