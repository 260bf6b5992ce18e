"""A door with several clients, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.resp import Engine, RequestParser, Session
from tests.resp.exchange import EngineClient, request

if TYPE_CHECKING:
    from collections.abc import Iterator


class DoorClient:
    """One of the door's connections."""

    def __init__(self, door: Door, number: int, session: Session) -> None:
        self.session = session
        self.killed = False
        self.address = f"127.0.0.1:{5000 + number}"
        self._door = door
        self._engine = Engine(session, door.first.server.table, RequestParser())

    def describe(self) -> dict[str, str | int]:
        return {"addr": self.address, "laddr": "127.0.0.1:6379", "fd": 7, "qbuf": 0}

    def kill(self) -> None:
        self.killed = True

    def run(self, *args: bytes | str | int) -> bytes:
        return self._engine.feed(request(*args), self._door.first.now_ms)


class Door:
    """Several connections to one server: what the commands know as its clients."""

    rejected = bytes_in = bytes_out = cut = 0

    def __init__(self, count: int) -> None:
        self.first = EngineClient()
        self.first.server.clients = self
        self.accepted = count
        self.clients = [
            DoorClient(self, number, Session(number, self.first.keyspace, self.first.server, self.first.now_ms))
            for number in range(1, count + 1)
        ]

    def __iter__(self) -> Iterator[DoorClient]:
        return iter([client for client in self.clients if not client.killed])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def reset_counters(self) -> None:
        self.accepted = 0
