"""Nodes whose log is a list: what is proposed is applied to all of them in the same order, when the test says so."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from hypercache.cluster.gateway import Gateway
from hypercache.cluster.machine import ClusterMachine
from hypercache.cluster.named_stores import ClusterStores
from hypercache.cluster.raft_stores import RaftStores
from hypercache.control.commands import CreateStore, DropStore, proposal
from hypercache.control.machine import ControlMachine
from hypercache.store import built_in_policies
from tests.resp.exchange import NOW_MS, EngineClient, request

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.store import Store

NODE_ID = 1


class ListLog:
    """A log of one leader.

    Attributes:
        entries: what was applied, as the leader prepared it.
        waiting: what is to be done at the next `deliver`.
        leads: whether the node leads.
    """

    def __init__(self) -> None:
        self.machines: list[ClusterMachine] = []
        self.entries: list[bytes] = []
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.reads = 0
        self.leads = True

    def propose(self, data: bytes) -> Deferred[bytes]:
        answer: Deferred[bytes] = Deferred()
        self.waiting.append((answer, lambda: self.commit(data)))
        return answer

    def read(self) -> Deferred[None]:
        self.reads += 1
        ready: Deferred[None] = Deferred()
        self.waiting.append((ready, lambda: None))
        return ready

    def turn(self) -> None:
        """Nothing: the test says when."""

    def commit(self, data: bytes) -> bytes:
        data = self.machines[0].prepare(data)
        self.entries.append(data)
        answers = [machine.apply(len(self.entries), NODE_ID, data) for machine in self.machines]
        assert len(set(answers)) == 1
        return answers[0]

    def deliver(self) -> None:
        waiting, self.waiting = self.waiting, []
        for answer, result in waiting:
            answer.callback(result())

    def fail(self, error: Exception) -> None:
        """Have what waits fail."""
        self.waiting, waiting = [], self.waiting
        for answer, _ in waiting:
            answer.errback(error)


def make_machine(wall: Callable[[], float] = lambda: NOW_MS / 1000) -> ClusterMachine:
    return ClusterMachine(ControlMachine(), RaftStores(), wall, random.Random(7))


class RaftNode:
    """A node with a door, and the machines of others."""

    def __init__(self, *, others: int = 0, now_ms: int = NOW_MS) -> None:
        self.clock = Clock()
        self.client = EngineClient()
        self.client.now_ms = now_ms
        self.log = ListLog()
        self.machine = make_machine(lambda: self.client.now_ms / 1000)
        self.log.machines = [self.machine, *(make_machine() for _ in range(others))]
        self.gateway = Gateway(self.log, self.machine.stores, self.clock)
        self.stores = ClusterStores(self.log, self.machine, self.client.keyspace, built_in_policies(), self.clock)
        self.machine.on_control = self.stores.changed
        self.client.server.stores = self.stores

    def create(self, name: str = "accounts", level: str = "raft", **options: Any) -> None:
        self.log.commit(proposal(CreateStore(name, level, **options)))

    def drop(self, name: str = "accounts") -> None:
        self.log.commit(proposal(DropStore(name)))

    def store(self, name: str = "accounts") -> Store:
        store = self.client.keyspace.named(name)
        assert store is not None
        return store

    def turn(self) -> None:
        """Let the reactor and the log do all there is to do."""
        for _ in range(1000):
            self.clock.advance(0)
            if not self.log.waiting:
                return
            self.log.deliver()
        raise AssertionError("it never rests")

    def raw(self, data: bytes) -> bytes:
        """Send bytes; return all replies, those that come later too."""
        return self.rest(self.client.raw(data))

    def rest(self, replies: bytes = b"") -> bytes:
        """Return the replies that come later."""
        while self.client.engine.stalled:
            self.turn()
            replies += self.client.raw(b"")
        return replies

    def run(self, *args: bytes | str | int) -> bytes:
        return self.raw(request(*args))
