"""One side of a gRPC connection that carries bytes as they are: it echoes, or asks for echoes.

Run as ``python -m benchmarks.grpc_peer threads|aio`` and ``python -m benchmarks.grpc_peer futures|threads|aio PORT``: which of its
ways gRPC takes.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import msgspec

from benchmarks.asking import Task, Took, say

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = bytes(100)
_METHOD = "/benchmarks.Echo/Echo"
_THREADS = 8


def _echo(request: bytes, context: Any) -> bytes:
    return request


async def _echo_later(request: bytes, context: Any) -> bytes:
    return request


def _handlers(echo: Any) -> tuple[Any, ...]:
    return (grpc.method_handlers_generic_handler("benchmarks.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}),)


def _answer_by_threads() -> None:
    server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=_handlers(_echo))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    say(f"ready {port}")
    server.wait_for_termination()


async def _answer_by_aio() -> None:
    server = grpc.aio.server(handlers=_handlers(_echo_later))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say(f"ready {port}")
    await server.wait_for_termination()


def _ask_by_futures(call: Any, task: Task) -> None:
    room = Semaphore(task.in_flight)
    for _ in range(task.count):
        room.acquire()
        call.future(CONTENT).add_done_callback(lambda _: room.release())
    for _ in range(task.in_flight):
        room.acquire()


def _ask_by_threads(call: Any, task: Task) -> None:
    def ask() -> None:
        for _ in range(task.count // task.in_flight):
            call(CONTENT)

    threads = [Thread(target=ask) for _ in range(task.in_flight)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


async def _ask_by_aio(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(_METHOD)

        async def ask(count: int) -> None:
            for _ in range(count):
                await call(CONTENT)

        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            task = msgspec.json.decode(line, type=Task)
            started, started_cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(ask(task.count // task.in_flight) for _ in range(task.in_flight)))
            _report(started, started_cpu)


def _take_orders(port: int, ask: Callable[[Any, Task], None]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(_METHOD)
        say("ready")
        for line in sys.stdin:
            task = msgspec.json.decode(line, type=Task)
            started, started_cpu = time.perf_counter(), time.process_time()
            ask(call, task)
            _report(started, started_cpu)


def _report(started: float, started_cpu: float) -> None:
    say(msgspec.json.encode(Took(time.perf_counter() - started, time.process_time() - started_cpu)).decode())


def main() -> None:
    """Run until killed."""
    match sys.argv[1:]:
        case ["threads"]:
            _answer_by_threads()
        case ["aio"]:
            asyncio.run(_answer_by_aio())
        case ["aio", port]:
            asyncio.run(_ask_by_aio(int(port)))
        case ["futures", port]:
            _take_orders(int(port), _ask_by_futures)
        case ["threads", port]:
            _take_orders(int(port), _ask_by_threads)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
