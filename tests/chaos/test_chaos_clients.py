"""What the clients record of a server that is linearizable is accepted, and what they record of worse ones is not."""

from __future__ import annotations

import asyncio
import random
import subprocess
from typing import TYPE_CHECKING, Any

import hiredis
import pytest

from hypercache.testing.histories import NEVER, Operation, Outcome
from hypercache.testing.linearizability import find_violation
from tests.chaos.clients import KEYS, LOG_KEY, Connection, Load, LostError, each_of, is_write, longest_gap, lost_or_doubled
from tests.chaos.cluster import eventually
from tests.chaos.servers import serving, settle
from tests.conftest import free_port, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import NodeProcess

pytestmark = pytest.mark.process


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Return a function that starts a real server without persistence on a port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(port: int) -> subprocess.Popen[bytes]:
        command = [program("redis-server", "redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


async def answering(port: int) -> None:
    async def answers() -> bool:
        connection = Connection(port)
        try:
            await connection.open()
        except LostError:
            return False
        connection.close()
        return True

    await eventually(answers, 10, f"an answer at port {port}")


async def loaded(ports: list[int], *, count: int, meanwhile: Callable[[], Any] | None = None) -> Load:
    """Load servers until so many operations were answered; do something halfway."""
    for port in ports:
        await answering(port)
    load = Load(ports, "", random.Random(1), think_seconds=0.001)
    load.start()
    await eventually(lambda: len(load.history) > count / 2, 20, "half the load")
    if meanwhile is not None:
        await meanwhile()
    await eventually(lambda: len(load.history) > count, 20, "the load")
    await load.stop()
    await load.read_all()
    await settle()
    return load


def test_a_server_that_is_linearizable_is_found_so(start_redis: Callable[[int], Any]) -> None:
    port = free_port()
    start_redis(port)
    load = asyncio.run(loaded([port], count=2000))
    operations = load.history.operations()
    assert find_violation(operations) is None
    assert lost_or_doubled(operations, operations[-1].result) == []
    assert load.surprises == []
    assert each_of(operations, Outcome.OK) == len(operations) > 2000
    assert {each.key for each in operations} == {key for key, _ in KEYS}
    assert {each.call[0] for each in operations} == {"get", "set", "swap", "add", "delete", "incr", "append"}


def test_a_node_alone_is_linearizable_also_while_it_is_paused(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node()

    async def pause() -> None:
        node.process.send_signal(19)
        await asyncio.sleep(0.5)
        node.process.send_signal(18)

    load = asyncio.run(loaded([node.resp_port], count=2000, meanwhile=pause))
    operations = load.history.operations()
    assert find_violation(operations) is None
    assert load.surprises == []
    first, last = operations[0].started, operations[-1].ended
    assert longest_gap(operations, first, last) >= 0.4


def test_servers_that_do_not_know_each_other_are_found_out(start_redis: Callable[[int], Any]) -> None:
    ports = [free_port(), free_port()]
    for port in ports:
        start_redis(port)
    load = asyncio.run(loaded(ports, count=1000))
    violation = find_violation(load.history.operations())
    assert violation is not None
    assert str(violation.blocked) in str(violation)


def test_a_server_that_forgets_in_a_crash_is_found_out(start_redis: Callable[[int], Any]) -> None:
    port = free_port()
    process = start_redis(port)

    async def crash() -> None:
        process.kill()
        process.wait()
        start_redis(port)
        await answering(port)

    load = asyncio.run(loaded([port], count=1000, meanwhile=crash))
    operations = load.history.operations()
    assert find_violation(operations) is not None
    assert any(line.startswith("lost") for line in lost_or_doubled(operations, operations[-1].result))


class Scripted:
    """A server that answers each command alike; nothing means that it closes the connection, None that it stays silent."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while data := await reader.read(1 << 16):
            parser.feed(data)
            while parser.gets() is not False:
                if self.answer is not None:
                    writer.write(self.answer)
                if self.answer == b"":
                    return


@pytest.mark.parametrize(
    ("answer", "outcome", "surprises"),
    [
        (b"+OK\r\n", Outcome.OK, False),
        (b"-CLUSTERDOWN no leader\r\n", Outcome.FAILED, False),
        (b"-BUSY too much\r\n", Outcome.FAILED, False),
        (b"-LOADING\r\n", Outcome.FAILED, False),
        (b"-UNKNOWN the write may have happened\r\n", Outcome.UNKNOWN, False),
        (b"-TRYAGAIN\r\n", Outcome.UNKNOWN, False),
        (b"-ERR internal error\r\n", Outcome.UNKNOWN, True),
        (b"", Outcome.UNKNOWN, False),
    ],
)
def test_an_answer_says_what_is_known(answer: bytes | None, outcome: Outcome, surprises: bool) -> None:
    async def run() -> Load:
        async with serving(Scripted(answer).serve) as port:
            load = Load([port], "", random.Random(1))
            connection = Connection(port)
            await connection.open()
            try:
                await load.ask(1, connection, b"k", ("set", b"v"))
            except LostError:
                assert not connection.is_open
            connection.close()
        return load

    load = asyncio.run(run())
    assert [each.outcome for each in load.history.operations()] == [outcome]
    assert bool(load.surprises) == surprises


def test_silence_is_not_waited_for_for_ever() -> None:
    async def run() -> None:
        async with serving(Scripted(None).serve) as port:
            connection = Connection(port)
            await connection.open()
            with pytest.raises(LostError):
                await connection.ask("GET", "k", seconds=0.1)
            assert not connection.is_open

    asyncio.run(run())


def appended(item: bytes, outcome: Outcome, at: float = 0.0) -> Operation:
    return Operation(0, LOG_KEY, ("append", item), outcome, 8, 0, NEVER, at, at)


def test_lost_and_doubled_items_are_told() -> None:
    operations = [appended(b"00000001", Outcome.OK), appended(b"00000002", Outcome.UNKNOWN), appended(b"00000003", Outcome.FAILED)]
    assert lost_or_doubled(operations, b"00000001") == []
    assert lost_or_doubled(operations, b"0000000100000002") == []
    assert len(lost_or_doubled(operations, b"00000002")) == 1
    assert len(lost_or_doubled(operations, b"0000000100000001")) == 1
    assert len(lost_or_doubled(operations, b"0000000100000003")) == 1


def test_the_longest_gap_counts_answers_to_writes_alone() -> None:
    read = Operation(0, b"k", ("get",), Outcome.OK, None, 0, 1, 4.0, 4.0)
    operations = [appended(b"", Outcome.OK, at) for at in (1.0, 2.0, 5.0, 5.5)] + [read, appended(b"", Outcome.UNKNOWN, 4.5)]
    assert all(is_write(each) for each in operations if each is not read)
    assert longest_gap(operations, 1.5, 6.0) == 3.0
    assert longest_gap(operations, 5.2, 9.0) == 3.5
