"""Clients that send their next put when the last is confirmed: one process, one epoll, every answer looked at."""

from __future__ import annotations

import random
import select
import socket
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.dialects import Dialect

_DRAIN_SECONDS = 10.0
_READ_BYTES = 1 << 16


class Load(msgspec.Struct, frozen=True):
    """What clients measured.

    Attributes:
        per_second: confirmed puts a second.
        median_ms: half of the puts took no longer than so many milliseconds.
        p99_ms: 99 of 100 did not.
        cpu: the share of one core that the clients took.
    """

    per_second: float
    median_ms: float
    p99_ms: float
    cpu: float


class _Client:
    """One connection, with one or more puts under way."""

    __slots__ = ("dialect", "sent_at", "socket")

    def __init__(self, port: int, dialect: Dialect) -> None:
        self.dialect = dialect
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at: list[float] = []


def put_for(seconds: float, ports: Sequence[int], clients: int, dialect: Callable[[], Dialect], together: int = 1) -> Load:
    """Put values for some seconds.

    Args:
        seconds: how long.
        ports: where clients connect, in turn.
        clients: how many connections.
        dialect: returns one connection's side of the protocol.
        together: how many puts of a connection are under way at a time.

    Raises:
        RefusedError: a put was refused.
        ConnectionError: a server closed a connection.
    """
    rng = random.Random(1)
    connections = [_Client(ports[number % len(ports)], dialect()) for number in range(clients)]
    by_number = {client.socket.fileno(): client for client in connections}
    took: list[float] = []
    with select.epoll() as poller:
        started, started_cpu = time.perf_counter(), time.process_time()
        for client in connections:
            poller.register(client.socket, select.EPOLLIN)
            client.sent_at = [started] * together
            client.socket.sendall(
                client.dialect.greeting + b"".join(client.dialect.put(rng.getrandbits(30)) for _ in range(together))
            )
        until = started + seconds
        while (now := time.perf_counter()) < until:
            for number, _ in poller.poll(until - now):
                client = by_number[number]
                count, answer = _read(client)
                if not count:
                    if answer:
                        client.socket.sendall(answer)
                    continue
                now = time.perf_counter()
                took += [now - at for at in client.sent_at[:count]]
                client.sent_at = [*client.sent_at[count:], *[now] * count]
                put = client.dialect.put
                client.socket.sendall(answer + b"".join([put(rng.getrandbits(30)) for _ in range(count)]))
        elapsed, cpu = time.perf_counter() - started, time.process_time() - started_cpu
        _drain(poller, by_number)
    for client in connections:
        client.socket.close()
    took.sort()
    if not took:
        return Load(0.0, 0.0, 0.0, cpu / elapsed)
    return Load(len(took) / elapsed, took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3, cpu / elapsed)


def _read(client: _Client) -> tuple[int, bytes]:
    data = client.socket.recv(_READ_BYTES)
    if not data:
        raise ConnectionError("a server closed the connection")
    return client.dialect.received(data)


def _drain(poller: select.epoll, by_number: dict[int, _Client]) -> None:
    """Wait for what is under way, so that the next to be measured finds the machine idle."""
    deadline = time.perf_counter() + _DRAIN_SECONDS
    waiting = {number: len(client.sent_at) for number, client in by_number.items()}
    while any(waiting.values()) and time.perf_counter() < deadline:
        for number, _ in poller.poll(0.1):
            count, _ = _read(by_number[number])
            waiting[number] -= count
