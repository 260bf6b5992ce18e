"""A client that sends raw bytes and reads whole replies."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

from hypercache.resp import Engine, RequestParser, ServerContext, Session, built_in_commands
from hypercache.resp.parameters import Parameter, Parameters
from hypercache.store import Keyspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercache.resp.contracts import Client


class NoClients:
    """A door without clients."""

    accepted = rejected = bytes_in = bytes_out = cut = 0

    def __iter__(self) -> Iterator[Client]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def reset_counters(self) -> None:
        """Nothing is counted."""


NOW_MS = 1_800_000_000_000


class EngineClient:
    """Talks to an engine directly; time stands still unless it is set."""

    def __init__(self, *, password: bytes = b"", seed: int = 1) -> None:
        rng = random.Random(seed)
        self.failures: list[Exception] = []
        self.keyspace = Keyspace(origin=1, rng=rng)
        self.keyspace.advance(NOW_MS)
        self.server = ServerContext(
            version="0",
            run_id="0" * 40,
            started_ms=NOW_MS,
            password=password,
            clients=NoClients(),
            keyspace=self.keyspace,
            rng=rng,
            report_failure=lambda _, failure: self.failures.append(failure),
            sections={},
        )
        self.server.value_max_bytes = 512 << 20
        self.server.table = built_in_commands()
        self.server.parameters = Parameters([Parameter("maxmemory-policy", lambda: "noeviction")])
        self.now_ms = NOW_MS
        self.connect()

    def connect(self) -> None:
        self.session = Session(1, self.keyspace, self.server, self.now_ms)
        self.parser = RequestParser()
        self.engine = Engine(self.session, self.server.table, self.parser)

    def raw(self, data: bytes) -> bytes:
        return self.engine.feed(data, self.now_ms)

    def run(self, *args: bytes | str | int) -> bytes:
        return self.raw(request(*args))


def request(*args: bytes | str | int) -> bytes:
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class SocketClient:
    """Talks to a server over a socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.file = self.socket.makefile("rb")

    def run(self, *args: bytes | str | int) -> bytes:
        self.socket.sendall(request(*args))
        return self.reply()

    def reply(self) -> bytes:
        """Return one whole reply as it came."""
        line = self.file.readline()
        kind = line[:1]
        if kind in (b"$", b"=") and int(line[1:]) >= 0:
            return line + self.file.read(int(line[1:]) + 2)
        if kind in (b"*", b"~", b">") and int(line[1:]) >= 0:
            return line + b"".join(self.reply() for _ in range(int(line[1:])))
        if kind == b"%":
            return line + b"".join(self.reply() for _ in range(2 * int(line[1:])))
        return line

    def close(self) -> None:
        self.file.close()
        self.socket.close()
