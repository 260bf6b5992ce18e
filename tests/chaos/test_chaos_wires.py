"""The relays do to bytes what they are told, in one direction and both, and know who dials."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from typing import TYPE_CHECKING, Any

from tests.chaos.cluster import eventually
from tests.chaos.servers import serving
from tests.chaos.wires import BLOCKED, HELD_MAX_BYTES, STRANGER, Weather, Wires, owner_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DIALLER, LISTENER = 0, 1
THERE, BACK = (DIALLER, LISTENER), (LISTENER, DIALLER)


class Echo:
    """A server behind a relay that answers what it reads, and a way to it.

    Attributes:
        heard: all that it read.
        ended: how many of its connections ended.
    """

    def __init__(self) -> None:
        self.wires = Wires(random.Random(1), lambda port: DIALLER)
        self.heard = b""
        self.ended = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
        self.ended += 1


def on_wires(test: Callable[[Echo, Callable[[], Awaitable[Any]]], Awaitable[None]]) -> None:
    """Run a test with a server, and a function that connects to it through the relay."""

    async def run() -> None:
        echo = Echo()
        async with serving(echo.serve) as echo.port, asyncio.timeout(20):
            relay_port = await echo.wires.relay(LISTENER, lambda: echo.port)
            writers: list[asyncio.StreamWriter] = []

            async def connect() -> Any:
                reader, writer = await asyncio.open_connection("127.0.0.1", relay_port)
                writers.append(writer)
                return reader, writer

            try:
                await test(echo, connect)
            finally:
                for writer in writers:
                    writer.transport.abort()
                await echo.wires.close()

    asyncio.run(run())


def test_bytes_pass_in_fair_weather_whatever_their_number() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        reader, writer = await connect()
        data = os.urandom(3 * HELD_MAX_BYTES)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await eventually(lambda: echo.ended, 5, "the end of the connection")

    on_wires(test)


def test_delay_and_jitter_delay_and_keep_the_order() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        echo.wires.set([THERE], Weather(delay=0.1, jitter=0.1))
        reader, writer = await connect()
        began = time.monotonic()
        for number in range(20):
            writer.write(b"%04d" % number)
            await asyncio.sleep(0)
        assert await reader.readexactly(80) == b"".join(b"%04d" % number for number in range(20))
        assert time.monotonic() - began >= 0.1

    on_wires(test)


def test_what_is_blocked_there_arrives_when_it_is_healed() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        reader, writer = await connect()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        echo.wires.set([THERE], BLOCKED)
        writer.write(b"b")
        await asyncio.sleep(0.2)
        assert echo.heard == b"a"
        echo.wires.heal()
        assert await reader.readexactly(1) == b"b"

    on_wires(test)


def test_an_end_is_not_told_while_the_way_there_is_blocked() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        reader, writer = await connect()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        echo.wires.set([THERE], BLOCKED)
        writer.write(b"b")
        writer.close()
        await asyncio.sleep(0.2)
        assert (echo.heard, echo.ended) == (b"a", 0)
        echo.wires.heal()
        await eventually(lambda: echo.ended, 5, "the end of the connection")
        assert echo.heard == b"ab"

    on_wires(test)


def test_what_is_blocked_back_is_heard_there() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        reader, writer = await connect()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        echo.wires.set([BACK], BLOCKED)
        writer.write(b"b")
        await eventually(lambda: echo.heard == b"ab", 5, "the way there")
        try:
            async with asyncio.timeout(0.2):
                raise AssertionError(f"heard {await reader.read(1)!r} though the way back is blocked")
        except TimeoutError:
            pass
        echo.wires.heal()
        assert await reader.readexactly(1) == b"b"

    on_wires(test)


def test_no_connection_is_made_while_either_way_is_blocked() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        for way in (THERE, BACK):
            echo.wires.set([way], BLOCKED)
            echo.heard = b""
            reader, writer = await connect()
            writer.write(b"x")
            await asyncio.sleep(0.2)
            assert echo.heard == b""
            echo.wires.heal()
            assert await reader.readexactly(1) == b"x"

    on_wires(test)


def test_a_sender_that_is_blocked_is_held_back() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        _, writer = await connect()
        writer.write(b"x")
        await eventually(lambda: echo.heard, 5, "the connection")
        echo.wires.set([THERE], BLOCKED)
        writer.write(bytes(10 * HELD_MAX_BYTES))
        await eventually(lambda: any(lane.held > HELD_MAX_BYTES for lane in echo.wires.lanes), 5, "bytes held back")
        await asyncio.sleep(0.2)
        assert max(lane.held for lane in echo.wires.lanes) < 2 * HELD_MAX_BYTES

    on_wires(test)


def test_connections_break_in_a_storm() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        echo.wires.set([THERE], Weather(break_share=1.0))
        reader, writer = await connect()
        writer.write(b"x")
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
        assert echo.heard == b""

    on_wires(test)


def test_nobody_behind_a_relay_is_a_lost_connection() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        echo.port = 1
        reader, _ = await connect()
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""

    on_wires(test)


def test_who_dials_is_told_by_its_port() -> None:
    async def test(echo: Echo, connect: Callable[[], Awaitable[Any]]) -> None:
        _, writer = await connect()
        port = writer.get_extra_info("sockname")[1]
        assert owner_of(port, {3: os.getppid(), 7: os.getpid()}) == 7
        assert owner_of(port, {3: os.getppid()}) == STRANGER

    on_wires(test)
