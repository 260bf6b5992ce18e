"""Links between two nodes, each way of trusting them against the plain one; and the plain one against AMP and gRPC.

Each pair of processes is started once, one process a core; each round asks all of them in turn. Beside the wall clock stands the
processors' time of the side that asks, which other work on the machine disturbs less.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from benchmarks.asking import Task, Took
from benchmarks.processes import CLIENT_CORE, SERVER_CORE, pinned
from benchmarks.report import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLUSTER = 77
_RUNS_IN_FLIGHT = 4096
_FAST_NETWORK_BYTES = 125_000_000
_CODECS = ("zstd", "lz4")
_TRUST = {"plain": None, "signed": 0.5, "tls": 0.7, "signed and tls": None}
"""Ways of trusting a link, and the share of the plain one's throughput that is wanted."""
_WAYS_OF_GRPC = (("threads", "futures"), ("aio", "aio"))


class _Pair:
    """Two processes, of which one asks the other."""

    def __init__(self, asking: subprocess.Popen[str]) -> None:
        self._asking = asking
        self.took: dict[Task, list[Took]] = {}

    def ask(self, task: Task) -> None:
        """Have a task done, and keep what it took."""
        assert self._asking.stdin
        self._asking.stdin.write(msgspec.json.encode(task).decode() + "\n")
        self._asking.stdin.flush()
        self.took.setdefault(task, []).append(msgspec.json.decode(_line(self._asking), type=Took))

    def per_second(self, task: Task) -> float:
        """Return how many requests were answered a second."""
        return task.count / median(took.seconds for took in self.took[task])

    def per_cpu_second(self, task: Task) -> float:
        """Return how many requests were answered for a second of the asking side's processor."""
        return task.count / median(took.cpu_seconds for took in self.took[task])

    def sent_bytes(self, task: Task) -> float:
        """Return how many bytes a request took on the network."""
        return median(took.sent_bytes for took in self.took[task]) / task.count


def run(rounds: int, quick: bool) -> list[Row]:
    """Return the rows: trust, compression, other libraries."""
    scale = 10 if quick else 1
    runs = Task(_RUNS_IN_FLIGHT * (100 // scale), _RUNS_IN_FLIGHT, "runs")
    values = Task(2000 // scale, 64, "values")
    over_network = Task(2000 // scale, 64, "values", _FAST_NETWORK_BYTES)
    requests = Task(64 * (400 // scale), 64)
    with contextlib.ExitStack() as running, tempfile.TemporaryDirectory() as directory:
        settings = _trust(Path(directory)) | {codec: [f"compression.codec={codec}"] for codec in _CODECS}
        links = {way: running.enter_context(_nodes(Path(directory) / way, each)) for way, each in settings.items()}
        others = {name: running.enter_context(_pair(*commands)) for name, commands in _others().items()}
        for _ in range(rounds):
            for way in _TRUST:
                links[way].ask(runs)
            for way in ("plain", *_CODECS):
                links[way].ask(values)
                links[way].ask(over_network)
            for pair in (links["plain"], *others.values()):
                pair.ask(requests)
    return [
        *_trust_rows(links, runs),
        *_compression_rows(links, values, over_network),
        *_other_rows(links["plain"], others, requests),
    ]


def _trust_rows(links: dict[str, _Pair], runs: Task) -> list[Row]:
    rows: list[Row] = []
    for way, wanted in _TRUST.items():
        if way != "plain":
            rows += _compared(f"{way} link against plain, 100 bytes", links[way], links["plain"], runs, wanted)
    return rows


def _compression_rows(links: dict[str, _Pair], values: Task, over_network: Task) -> list[Row]:
    plain = links["plain"]
    rows: list[Row] = []
    for codec in _CODECS:
        without, within = plain.sent_bytes(values), links[codec].sent_bytes(values)
        rows.append(Row(f"{codec}, 64 KiB of JSON: bytes sent without and with", without, within, without / within, 3.0))
        rows += _compared(f"{codec}, 64 KiB of JSON, at 1 Gbit/s", links[codec], plain, over_network, 1.0)
        rows += _compared(f"{codec}, 64 KiB of JSON, on loopback", links[codec], plain, values, None)
    return rows


def _other_rows(plain: _Pair, others: dict[str, _Pair], requests: Task) -> list[Row]:
    rows = _compared("64 in flight against AMP", plain, others["AMP"], requests, 5.0)
    ways_of_grpc = [pair for name, pair in others.items() if name.startswith("gRPC")]
    if ways_of_grpc:
        fastest = max(ways_of_grpc, key=lambda pair: pair.per_second(requests))
        rows += _compared("64 in flight against gRPC", plain, fastest, requests, 3.0)
    return rows


def _others() -> dict[str, tuple[list[str], list[str]]]:
    """Return the commands of other libraries' pairs: who answers, who asks."""
    commands = {"AMP": (_module("amp_peer"), _module("amp_peer"))}
    if importlib.util.find_spec("grpc"):
        for answering, asking in _WAYS_OF_GRPC:
            commands[f"gRPC {asking}"] = (_module("grpc_peer", answering), _module("grpc_peer", asking))
    return commands


def _compared(what: str, own: _Pair, other: _Pair, task: Task, wanted: float | None) -> list[Row]:
    ours, theirs = own.per_second(task), other.per_second(task)
    cpu_ours, cpu_theirs = own.per_cpu_second(task), other.per_cpu_second(task)
    return [
        Row(f"{what}: requests/s", ours, theirs, ours / theirs, wanted),
        Row("… for a second of the asking processor", cpu_ours, cpu_theirs, cpu_ours / cpu_theirs, None),
    ]


def _trust(directory: Path) -> dict[str, list[str]]:
    """Make keys and certificates; return the settings of each way of trusting a link."""
    command = str(Path(sys.executable).with_name("hypercache"))
    certificates, keys = directory / "certificates", directory / "keys"
    subprocess.run([command, "keygen", str(keys)], check=True, stdout=subprocess.DEVNULL)
    makes = ["ca"], *(["node", "--cluster", str(_CLUSTER), "--node", str(number)] for number in (1, 2))
    for kind, *options in makes:
        subprocess.run([command, "certs", kind, "--dir", str(certificates), *options], check=True, stdout=subprocess.DEVNULL)
    signed = ["security.auth=hmac", f"security.key_file={keys}"]
    # The number of each node takes the place of the sign.
    tls = [f"cluster_tls.{name}={certificates}/node-#.{end}" for name, end in (("certificate", "pem"), ("key", "key"))]
    tls.append(f"cluster_tls.ca={certificates}/ca.pem")
    return {
        "plain": [],
        "signed": signed,
        "tls": ["security.auth=mtls", *tls],
        "signed and tls": [*signed, *tls],
    }


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


@contextlib.contextmanager
def _nodes(directory: Path, settings: list[str]) -> Iterator[_Pair]:
    """Run two nodes with the same settings, of which the second asks the first."""
    answering, asking = (
        _module(
            "linked_node",
            str(directory / str(number)),
            f"node.id={number}",
            f"cluster.id={_CLUSTER}",
            *(each.replace("#", str(number)) for each in settings),
        )
        for number in (1, 2)
    )
    with _pair(answering, asking, joining="cluster.join=127.0.0.1:") as pair:
        yield pair


@contextlib.contextmanager
def _pair(answering: list[str], asking: list[str], joining: str = "") -> Iterator[_Pair]:
    """Run two processes; the one that asks is told the other's port, behind ``joining``."""
    with _process(pinned(SERVER_CORE, answering)) as answers:
        port = _line(answers).rpartition(" ")[2]
        with _process(pinned(CLIENT_CORE, [*asking, joining + port])) as asks:
            _line(asks)
            yield _Pair(asks)


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process says."""
    assert process.stdout
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit("a process that is measured has ended")
    return line
