"""Clients that load a store over RESP and record what they asked and were answered."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import hiredis

from hypercache.testing.histories import History, Operation, Outcome
from tests.chaos.cluster import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hypercache.testing.histories import Call

CERTAINLY_NOT: Final = ("CLUSTERDOWN", "BUSY", "LOADING")
"""How errors begin that mean that the command was not carried out, and will not be."""

MAYBE: Final = ("UNKNOWN", "TRYAGAIN")
"""How errors begin after which nothing is known."""

ANSWER_SECONDS: Final = 8.0
MANY_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 0.05
LOG_KEY: Final = b"log"
ITEM_BYTES: Final = 8

REGISTER_CALLS: Final = ("get", "get", "get", "set", "set", "swap", "delete")
LOCK_CALLS: Final = ("get", "add", "add", "delete")
COUNTER_CALLS: Final = ("get", "incr", "incr")
LOG_CALLS: Final = ("get", "append", "append")
KEYS: Final = (
    *((b"register%d" % number, REGISTER_CALLS) for number in range(6)),
    *((b"lock%d" % number, LOCK_CALLS) for number in range(2)),
    *((b"counter%d" % number, COUNTER_CALLS) for number in range(2)),
    (LOG_KEY, LOG_CALLS),
)
"""The keys, and what clients do to each."""


class LostError(Exception):
    """A connection was lost, or an answer did not come in time."""


def command_of(key: bytes, call: Call) -> tuple[Any, ...]:
    """Return a call as a Redis command."""
    name, *arguments = call
    if name == "add":
        return "SET", key, arguments[0], "NX"
    names = {"get": "GET", "set": "SET", "swap": "GETSET", "delete": "DEL", "incr": "INCRBY", "append": "APPEND"}
    return names[name], key, *arguments


def result_of(call: Call, reply: Any) -> Any:
    """Return a Redis reply as the answer to a call."""
    if call[0] in ("set", "add"):
        return reply == b"OK"
    return bool(reply) if call[0] == "delete" else reply


class Connection:
    """One connection to a node, on a store."""

    def __init__(self, port: int, store: str = "") -> None:
        self.port = port
        self._store = store
        self._reader = hiredis.Reader()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect, and select the store.

        Raises:
            LostError: that cannot be done now.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            raise LostError(str(error)) from None
        if self._store and isinstance(reply := await self.ask("SELECT", self._store, seconds=CONNECT_SECONDS), Exception):
            self.close()
            raise LostError(str(reply))

    async def ask(self, *arguments: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """Return the reply to one command; an error reply as an exception that is not raised.

        Raises:
            LostError: there came none; the connection is closed.
        """
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(seconds):
                writer.write(hiredis.pack_command(arguments))
                while (reply := self._reader.gets()) is False:
                    self._reader.feed(await _read(reader))
        except OSError as error:
            self.close()
            raise LostError(str(error)) from None
        except BaseException:
            self.close()
            raise
        return reply

    async def ask_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the replies to commands sent at once.

        Raises:
            OSError: the connection was lost, or no reply came for long.
        """
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(b"".join(hiredis.pack_command(tuple(command)) for command in commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                async with asyncio.timeout(MANY_SECONDS):
                    self._reader.feed(await _read(reader))
            else:
                replies.append(reply)
        return replies

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    @property
    def is_open(self) -> bool:
        return self._streams is not None


async def _read(reader: asyncio.StreamReader) -> bytes:
    data = await reader.read(1 << 16)
    if not data:
        raise ConnectionResetError("closed by the node")
    return data


class Load:
    """Clients that ask one thing after the other, each of one node until that fails it.

    Args:
        ports: the nodes' ports for clients.
        store: the store that they select; none where it is empty.
        rng: decides what they ask.
        clients: how many.
        think_seconds: how long they wait between two operations, on the average.

    Attributes:
        history: what they asked and were answered.
        surprises: error replies that a client would not expect here.
    """

    def __init__(
        self, ports: Sequence[int], store: str, rng: random.Random, *, clients: int = 8, think_seconds: float = 0.008
    ) -> None:
        self.ports = ports
        self.history = History(time.monotonic)
        self.surprises: list[str] = []
        self._store = store
        self._rng = rng
        self._clients = clients
        self._think_seconds = think_seconds
        self._values = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._latest_ok_start = 0.0
        self._stopping = False

    def start(self) -> None:
        self._tasks = [asyncio.ensure_future(self._run(client)) for client in range(self._clients)]

    async def stop(self) -> None:
        """Ask nothing more; wait for the answers that are under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def progress(self, seconds: float = 15.0) -> None:
        """Wait until a write succeeded that was asked for from now on."""
        began = time.monotonic()
        await eventually(lambda: self._latest_ok_start > began, seconds, "a write")

    async def _run(self, client: int) -> None:
        at = client % len(self.ports)
        connection = Connection(self.ports[at], self._store)
        while not self._stopping:
            try:
                if not connection.is_open:
                    await connection.open()
                refused = not await self.ask(client, connection, *self._choose(client))
            except LostError:
                refused = True
            if refused and not self._stopping:
                # Another node may know more.
                connection.close()
                at = (at + 1) % len(self.ports)
                connection = Connection(self.ports[at], self._store)
                await asyncio.sleep(REFUSED_SECONDS)
            await asyncio.sleep(2 * self._think_seconds * self._rng.random())
        connection.close()

    def _choose(self, client: int) -> tuple[bytes, Call]:
        key, names = self._rng.choice(KEYS)
        name = self._rng.choice(names)
        self._values += 1
        if name == "incr":
            return key, (name, self._rng.randint(1, 3))
        if name == "append":
            return key, (name, b"%0*d" % (ITEM_BYTES, self._values))
        return key, (name,) if name in ("get", "delete") else (name, b"%d-%d" % (client, self._values))

    async def ask(self, client: int, connection: Connection, key: bytes, call: Call) -> bool:
        """Ask one thing and record it; return whether it was answered.

        Raises:
            LostError: it was not, and the connection is lost.
        """
        number = self.history.begin(client, key, call)
        began = time.monotonic()
        try:
            reply = await connection.ask(*command_of(key, call))
        except LostError:
            self.history.unknown(number)
            raise
        if not isinstance(reply, Exception):
            self.history.ok(number, result_of(call, reply))
            if call[0] != "get":
                self._latest_ok_start = max(self._latest_ok_start, began)
            return True
        text = str(reply)
        if text.startswith(CERTAINLY_NOT):
            self.history.failed(number)
            return False
        self.history.unknown(number)
        if not text.startswith(MAYBE):
            self.surprises.append(f"{call}: {text}")
        return False

    async def read_all(self) -> None:
        """Read every key at every node, and record that."""
        for at, port in enumerate(self.ports):
            connection = Connection(port, self._store)
            await connection.open()
            for key, _ in KEYS:
                assert await self.ask(self._clients + at, connection, key, ("get",)), f"the node at {port} answers no read"
            connection.close()


def is_write(operation: Operation) -> bool:
    """Whether an operation asks for a change."""
    return bool(operation.call[0] != "get")


def longest_gap(operations: Sequence[Operation], start: float, end: float) -> float:
    """Return the longest time between two moments without the answer to a write, seconds."""
    answers = sorted(
        each.ended for each in operations if each.outcome is Outcome.OK and is_write(each) and start < each.ended < end
    )
    moments = [start, *answers, end]
    return max(later - earlier for earlier, later in pairwise(moments))


def lost_or_doubled(operations: Sequence[Operation], final: bytes) -> list[str]:
    """Return what is wrong with the log key: each acknowledged item is in it once, each other one at most once."""
    items = [final[at : at + ITEM_BYTES] for at in range(0, len(final), ITEM_BYTES)]
    wrong = [f"{item!r} stands there {items.count(item)} times" for item in sorted(set(items)) if items.count(item) > 1]
    appended = [each for each in operations if each.key == LOG_KEY and each.call[0] == "append"]
    known = set(items)
    wrong += [f"lost: {each}" for each in appended if each.outcome is Outcome.OK and each.call[1] not in known]
    wrong += [f"should not be there: {each}" for each in appended if each.outcome is Outcome.FAILED and each.call[1] in known]
    return wrong


def each_of(operations: Sequence[Operation], outcome: Outcome, which: Callable[[Operation], bool] = lambda _: True) -> int:
    """Return how many operations had an outcome."""
    return sum(1 for each in operations if each.outcome is outcome and which(each))
