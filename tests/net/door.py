"""A RESP door without a node around it."""

from __future__ import annotations

import random
import time
from typing import Any

from twisted.internet import reactor

from hypercache.net.clients import ClientFactory, ClientLimits
from hypercache.resp import ServerContext, built_in_commands
from hypercache.resp.parameters import Parameters
from hypercache.store import Keyspace

FULL = b"-ERR max number of clients reached\r\n"


def client_factory(clock: Any = reactor, wall: Any = time.time, **limits: Any) -> ClientFactory:
    """Return the factory of a door whose clients have these limits."""
    rng = random.Random(1)
    keyspace = Keyspace(origin=1, rng=rng)
    keyspace.advance(int(wall() * 1000))
    factory = ClientFactory(built_in_commands(), ClientLimits(**limits), clock=clock, wall=wall)
    server = ServerContext(
        version="0",
        run_id="0" * 40,
        started_ms=keyspace.now_ms,
        password=b"",
        clients=factory,
        keyspace=keyspace,
        rng=rng,
        report_failure=lambda _, failure: None,
        sections={},
    )
    server.value_max_bytes = 512 << 20
    server.table = factory.table
    server.parameters = Parameters([])
    factory.server = server
    return factory


def request(*args: bytes) -> bytes:
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args)


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)
