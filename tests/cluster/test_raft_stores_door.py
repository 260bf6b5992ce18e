"""The door while commands of its clients are in the log: no polling, back-pressure, and connections that end meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from hypercache.cluster.gateway import Gateway
from hypercache.control.commands import CreateStore, proposal
from hypercache.net.clients import ClientFactory, ClientProtocol
from hypercache.resp.replies import OK
from tests.cluster.raft_log import ListLog, make_machine
from tests.net.door import client_factory, request

SET = request(b"SET", b"k", b"v")
GET = request(b"GET", b"k")


class Wire(StringTransport):
    """A transport of memory that ends as a connection does, and may be full."""

    aborted = False
    full = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.full and self.producer is not None:
            self.producer.pauseProducing()

    def abortConnection(self) -> None:
        self.aborted = True

    def taken(self) -> bytes:
        value: bytes = self.value()
        self.clear()
        return value


class Door:
    """A door to one store of level raft."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.log = ListLog()
        self.machine = make_machine(self.clock.seconds)
        self.log.machines = [self.machine]
        self.factory: ClientFactory = client_factory(self.clock, self.clock.seconds, **limits)
        self.factory.server.keyspace.logged = self.machine.stores.stores  # type: ignore[attr-defined]
        self.gateway = Gateway(self.log, self.machine.stores, self.clock)
        self.log.commit(proposal(CreateStore("s", "raft")))

    def client(self) -> tuple[ClientProtocol, Wire]:
        client: Any = self.factory.buildProtocol(None)
        wire = Wire()
        client.makeConnection(wire)
        client.session.store = self.machine.stores.stores["s"]
        return client, wire

    def turn(self) -> None:
        self.clock.advance(0)
        self.log.deliver()


def test_replies_are_written_when_the_log_has_answered_and_nothing_polls_until_then() -> None:
    door = Door()
    client, wire = door.client()
    client.dataReceived(SET)
    door.clock.advance(0)
    assert door.clock.getDelayedCalls() == []
    assert wire.value() == b""
    door.log.deliver()
    assert wire.taken() == OK
    client.dataReceived(GET)
    door.turn()
    assert wire.taken() == b"$1\r\nv\r\n"


def test_a_client_that_waits_for_its_replies_is_read_on_and_one_that_sends_more_is_not() -> None:
    door = Door()
    client, wire = door.client()
    client.dataReceived(SET)
    assert wire.producerState == "producing"
    client.dataReceived(GET)
    assert wire.producerState == "paused"
    door.turn()
    assert wire.taken() == OK
    assert wire.producerState == "paused"
    door.turn()
    assert wire.taken() == b"$1\r\nv\r\n"
    assert wire.producerState == "producing"
    client.dataReceived(request(b"PING"))
    assert wire.taken() == b"+PONG\r\n"


def test_the_outcome_for_a_client_that_is_gone_is_dropped_and_the_write_stays() -> None:
    door = Door()
    client, wire = door.client()
    other, others_wire = door.client()
    client.dataReceived(SET)
    other.dataReceived(SET)
    door.clock.advance(0)
    client.connectionLost(Failure(ConnectionDone()))
    door.log.deliver()
    assert wire.value() == b""
    assert others_wire.taken() == OK
    assert len(door.factory) == 1
    assert len(door.machine.stores.stores["s"]) == 1


def test_a_client_that_is_killed_gets_no_more() -> None:
    door = Door()
    client, wire = door.client()
    client.dataReceived(SET + GET)
    door.clock.advance(0)
    client.kill()
    door.log.deliver()
    door.turn()
    assert wire.aborted
    assert wire.value() == b""
    assert door.log.reads == 0
    client.connectionLost(Failure(ConnectionDone()))
    assert len(door.factory) == 0


def test_a_shutdown_waits_for_the_replies_and_runs_nothing_behind_them() -> None:
    door = Door()
    client, wire = door.client()
    idle, idle_wire = door.client()
    drained: list[bool] = []
    client.dataReceived(SET + GET + SET)
    door.factory.drain(lambda: drained.append(True))
    assert idle_wire.disconnecting
    assert not wire.disconnecting
    client.dataReceived(SET)
    door.turn()
    assert wire.taken() == OK
    assert wire.disconnecting
    door.turn()
    assert door.log.reads == 0
    assert wire.value() == b""
    for each in (client, idle):
        each.connectionLost(Failure(ConnectionDone()))
    assert drained == [True]
    assert door.clock.getDelayedCalls() == []


@pytest.mark.parametrize("full", [False, True])
def test_replies_that_come_while_the_client_reads_nothing_wait_for_it(full: bool) -> None:
    door = Door()
    client, wire = door.client()
    wire.full = full
    client.dataReceived(request(b"PING") + SET + GET)
    assert wire.taken() == b"+PONG\r\n"
    door.turn()
    door.turn()
    if full:
        assert wire.value() == b""
        wire.full = False
        assert wire.producer is not None
        wire.producer.resumeProducing()
        door.turn()
    assert wire.taken() == OK + b"$1\r\nv\r\n"


def test_a_pause_after_a_run_is_waited_for_as_ever() -> None:
    door = Door()
    client, wire = door.client()
    client.dataReceived(request(b"CLIENT", b"PAUSE", b"100") + SET)
    assert wire.taken() == OK
    assert wire.producerState == "paused"
    door.clock.advance(0.2)
    door.turn()
    assert wire.taken() == OK
    assert wire.producerState == "producing"
