"""Groups of three servers that agree on every put: etcd's, and ours. Both hear heartbeats every 100 ms and elect after 1,000."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.dialects import Dialect, EtcdPuts, RefusedError, RespPuts
from benchmarks.processes import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MEMBERS = range(3)
HEARTBEAT_MS = 100
ELECTION_MS = 1000
_STORE = "bench"
_ANSWER_SECONDS = 5.0


class Group(ABC):
    """Three servers on loopback, their data on one file system.

    Args:
        directory: where they keep it.

    Attributes:
        ports: where each takes clients.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.ports = [free_port() for _ in MEMBERS]
        self._peer_ports = [free_port() for _ in MEMBERS]
        self._directory = directory
        self._running: dict[int, psutil.Popen] = {}

    @abstractmethod
    def dialect(self) -> Dialect:
        """Return what a client's connection speaks."""

    @abstractmethod
    def leads(self, number: int) -> bool:
        """Say whether a member leads."""

    @abstractmethod
    def _command(self, number: int) -> list[str]:
        """Return the command that starts a member, for the first time or again."""

    def start(self, number: int) -> None:
        """Start a member."""
        with (self._directory / f"{number}.log").open("a") as log:
            self._running[number] = psutil.Popen(self._command(number), stdout=log, stderr=subprocess.STDOUT)

    def kill(self, number: int) -> None:
        """Kill a member, which has no time for a farewell."""
        self._running[number].kill()

    def wait_until_serving(self, numbers: Sequence[int] = MEMBERS) -> None:
        """Wait until members confirm puts."""
        for number in numbers:
            wait_for(lambda number=number: self._confirms_a_put(number), f"member {number} of {type(self).__name__}")

    def leader(self) -> int:
        """Return who leads, once somebody does."""
        leading: list[int] = []

        def known() -> bool:
            leading[:] = [number for number in MEMBERS if self.leads(number)]
            return len(leading) == 1

        wait_for(known, f"a leader of {type(self).__name__}")
        return leading[0]

    def cpu_seconds(self) -> float:
        """Return the processors' time that all members have used."""
        return float(sum(sum(process.cpu_times()[:2]) for process in self._running.values()))

    def end(self) -> None:
        """Kill what runs."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def restart(self, number: int) -> None:
        """Start a member that was killed; wait until it is back."""
        self._running[number].wait()
        self.start(number)
        self.wait_until_serving()

    def _confirms_a_put(self, number: int) -> bool:
        dialect = self.dialect()
        with (
            contextlib.suppress(OSError, RefusedError),
            socket.create_connection(("127.0.0.1", self.ports[number]), _ANSWER_SECONDS) as connection,
        ):
            connection.sendall(dialect.greeting + dialect.put(0))
            while data := connection.recv(4096):
                count, answer = dialect.received(data)
                if count:
                    return True
                connection.sendall(answer)
        return False


class EtcdGroup(Group):
    """Three members of etcd with its own defaults, which are these timeouts."""

    PROGRAM = "etcd"

    def dialect(self) -> Dialect:
        """Return a gRPC connection's side."""
        return EtcdPuts()

    def leads(self, number: int) -> bool:
        """Ask its metrics."""
        return b"\netcd_server_is_leader 1\n" in fetched(f"http://127.0.0.1:{self.ports[number]}/metrics")

    def _command(self, number: int) -> list[str]:
        client, peer = (f"http://127.0.0.1:{ports[number]}" for ports in (self.ports, self._peer_ports))
        members = ",".join(f"m{each}=http://127.0.0.1:{self._peer_ports[each]}" for each in MEMBERS)
        options = {
            "name": f"m{number}",
            "data-dir": str(self._directory / str(number)),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": members,
            "heartbeat-interval": str(HEARTBEAT_MS),
            "election-timeout": str(ELECTION_MS),
        }
        return [self.PROGRAM, *(f"--{name}={value}" for name, value in options.items())]


class OwnGroup(Group):
    """Three nodes of HyperCache with a store of level raft."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._admin_ports = [free_port() for _ in MEMBERS]

    def dialect(self) -> Dialect:
        """Return a RESP connection's side."""
        return RespPuts(_STORE.encode())

    def leads(self, number: int) -> bool:
        """Ask its status."""
        return bool(self._status(number).get("node", {}).get("role") == "leader")

    def found(self) -> None:
        """Wait until all three vote, and make the store."""
        wait_for(lambda: len(self._status(self.leader()).get("voters", ())) == len(MEMBERS), "the three voters")
        words = [b"HYPERCACHE.STORE", b"CREATE", _STORE.encode(), b"LEVEL", b"raft"]
        with socket.create_connection(("127.0.0.1", self.ports[0]), _ANSWER_SECONDS) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
            answer = connection.recv(4096)
        if answer != b"+OK\r\n":
            raise SystemExit(f"the store could not be made: {answer.decode()}")

    def _status(self, number: int) -> dict[str, Any]:
        found = fetched(f"http://127.0.0.1:{self._admin_ports[number]}/status")
        status: dict[str, Any] = json.loads(found) if found else {}
        return status

    def _command(self, number: int) -> list[str]:
        ports = {"resp": self.ports, "listen": self._peer_ports, "admin": self._admin_ports}
        options = [f"--{name}={each[number]}" for name, each in ports.items()]
        if number:
            options.append(f"--join=127.0.0.1:{self._peer_ports[0]}")
        settings = {"raft.heartbeat": HEARTBEAT_MS / 1000, "raft.election": ELECTION_MS / 1000}
        options += [f"--set={name}={value}" for name, value in settings.items()]
        twistd = shutil.which("twistd", path=str(sys.prefix) + "/bin") or "twistd"
        return [twistd, "-n", "--pidfile=", "hypercache", "node", f"--data-dir={self._directory / str(number)}", *options]


@contextlib.contextmanager
def etcd(directory: Path) -> Iterator[EtcdGroup]:
    """Run three members of etcd."""
    group = EtcdGroup(directory / "etcd")
    with _ending(group):
        for number in MEMBERS:
            group.start(number)
        group.wait_until_serving()
        yield group


@contextlib.contextmanager
def own(directory: Path) -> Iterator[OwnGroup]:
    """Run three nodes of ours."""
    group = OwnGroup(directory / "hypercache")
    with _ending(group):
        for number in MEMBERS:
            group.start(number)
        group.found()
        group.wait_until_serving()
        yield group


@contextlib.contextmanager
def _ending(group: Group) -> Iterator[None]:
    try:
        yield
    finally:
        group.end()


def fetched(url: str) -> bytes:
    """Return what a server answers over HTTP; nothing where it does not."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:
        found: bytes = answer.read()
        return found
    return b""
