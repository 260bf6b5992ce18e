"""A simulated group: nodes, network, time and luck from one seed (docs/testing.md)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from hypercache.errors import BusyError, NotLeaderError, OutcomeUnknownError
from hypercache.raft import Configuration
from hypercache.testing.cells import Cells
from hypercache.testing.clock import HeapClock
from hypercache.testing.crashes import SimulatedCrash
from hypercache.testing.invariants import Invariants
from hypercache.testing.network import SimulatedNetwork
from hypercache.testing.node import NodeSettings, SimulatedNode
from hypercache.testing.watched import numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hypercache.consensus.contracts import StateMachine
    from hypercache.raft import Outbound


class SimulatedGroup:
    """Nodes that found a group together; nothing happens before `start`.

    Args:
        seed: two groups with the same seed that are treated alike behave alike.
        voters: who founds it.
        settings: how the nodes are made.
        machine: makes a state machine, empty; cells by default.

    Attributes:
        clock: the true time.
        random: for whoever needs luck that belongs to the seed.
        network: between the nodes.
        invariants: look at every node after every event.
        founders: the founding configuration.
        nodes: by id.
        deaths: called with a node that has died, and why.
        trace: called with a sentence for each event; None for nobody.
    """

    def __init__(
        self,
        seed: int,
        voters: Iterable[int],
        settings: NodeSettings,
        machine: Callable[[], StateMachine] | None = None,
    ) -> None:
        self.clock = HeapClock()
        self.random = random.Random(seed)
        self.founders = Configuration(tuple(sorted(voters)))
        self.invariants = Invariants(self.founders)
        self.network = SimulatedNetwork(self.clock, random.Random(self.random.getrandbits(64)), self._deliver)
        self.nodes: dict[int, SimulatedNode] = {}
        self.deaths: list[Callable[[SimulatedNode, str], None]] = []
        self.trace: Callable[[str], None] | None = None
        self._settings = settings
        self._machine = machine or (lambda: Cells(self.founders.voters))
        self._numbers = 0
        self._asked: dict[int, dict[int, Deferred[Any]]] = {}
        for node in self.founders.voters:
            self.add(node).found(self.founders)

    def add(self, node_id: int) -> SimulatedNode:
        """Make another node, with an empty disk; `change_members` of the leader's driver lets it take part."""
        node = SimulatedNode(
            node_id,
            self._settings,
            self._machine,
            self.clock,
            self.network,
            self.invariants,
            random.Random(self.random.getrandbits(64)),
            self._died,
        )
        self.nodes[node_id] = node
        self._asked[node_id] = {}
        return node

    def start(self) -> None:
        """Start all nodes that do not run."""
        for node in self.nodes.values():
            if not node.alive:
                node.start()

    def run(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            InvariantError: a promise is broken.
        """
        self.clock.advance(seconds)

    def run_until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Let time pass until a condition holds, at most so many seconds; return whether it does.

        Raises:
            InvariantError: a promise is broken.
        """
        end = self.clock.seconds() + seconds
        while not condition():
            if self.clock.seconds() >= end or not self.clock.step():
                return False
        return True

    @property
    def leader(self) -> SimulatedNode | None:
        """The running node that leads the highest term, if one does."""
        leaders = [node for node in self.nodes.values() if node.running and node.leads]
        return max(leaders, key=lambda node: node.raft.term, default=None)

    # What clients ask

    def propose(self, node_id: int, data: bytes) -> Deferred[bytes]:
        """Propose data at a node.

        Returns:
            Fires with the state machine's answer, or fails as `Consensus.propose` does; with an OutcomeUnknownError where the node
            dies meanwhile.
        """
        self._numbers += 1
        return self._ask(node_id, self._propose, data, self._numbers)

    def read(self, node_id: int) -> Deferred[None]:
        """Wait until a node's state machine may be read: it fires in the very event.

        Returns:
            Fails as `Consensus.read` does, and with a NotLeaderError where the node dies meanwhile.
        """
        return self._ask(node_id, self._read, b"", 0)

    def _ask(
        self, node_id: int, ask: Callable[[SimulatedNode, bytes, int, Deferred[Any]], None], data: bytes, number: int
    ) -> Deferred[Any]:
        node = self.nodes[node_id]
        if not node.alive:
            return fail(NotLeaderError(0))
        answer: Deferred[Any] = Deferred()
        self._asked[node_id][id(answer)] = answer
        node.enter(ask, node, data, number, answer)
        return answer

    def _propose(self, node: SimulatedNode, data: bytes, number: int, answer: Deferred[bytes]) -> None:
        node.consensus.propose(numbered(number, data)).addBoth(self._answered, node, number, answer)

    def _read(self, node: SimulatedNode, data: bytes, number: int, answer: Deferred[None]) -> None:
        node.consensus.read().addBoth(self._answered, node, number, answer)

    def _answered(self, result: Any, node: SimulatedNode, number: int, answer: Deferred[Any]) -> None:
        try:
            node.points.reach("answer")
        except SimulatedCrash as crash:
            # A Deferred would swallow it.
            node.die(f"at the point {crash.point!r}")
        if number and isinstance(result, Failure) and isinstance(result.value, BusyError | NotLeaderError):
            self.invariants.refused(number)
        if self._asked[node.id].pop(id(answer), None) is not None:
            answer.callback(result)

    # What nodes tell

    def _deliver(self, sender: int, receiver: int, outbound: Outbound) -> None:
        node = self.nodes.get(receiver)
        if node is not None and node.alive:
            if self.trace is not None:
                self.trace(f"{receiver} takes from {sender}: {outbound.message}")
            node.receive(sender, outbound)

    def _died(self, node: SimulatedNode, reason: str) -> None:
        self.note(f"node {node.id} dies: {reason}")
        asked, self._asked[node.id] = self._asked[node.id], {}
        for answer in asked.values():
            answer.errback(OutcomeUnknownError("the node died"))
        for told in self.deaths:
            told(node, reason)

    def note(self, text: str) -> None:
        """Put a sentence into the trace."""
        if self.trace is not None:
            self.trace(text)
