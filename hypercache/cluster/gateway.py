"""The way of clients' commands into the log: what comes in one turn of the reactor is one proposal, and one read round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger

from hypercache.cluster.batches import batch_entry, decode_answer, encode_unit
from hypercache.errors import BusyError, MalformedMessageError, NotLeaderError, OutcomeUnknownError
from hypercache.limits import (
    RAFT_APPEND_MAX_BYTES,
    RAFT_COMMAND_MAX_BYTES,
    RAFT_GATHER_AGAIN_SECONDS,
    RAFT_GATHER_BYTES,
    RAFT_GATHER_SECONDS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from hypercache.cluster.raft_stores import RaftStores
    from hypercache.resp.table import Command

_log = Logger()

NO_LEADER: Final = "CLUSTERDOWN no leader of the Raft group is known; try again"
BUSY: Final = "BUSY too much waits for the Raft log already; try again later"
UNKNOWN: Final = "UNKNOWN the write found no majority in time; it may or may not have happened"
_BROKEN: Final = "ERR internal error, see the node's log"

_Writer = tuple[int, "Callable[[Sequence[bytes] | str], None]"]
"""How many replies it waits for, and what takes them."""


class Log(Protocol):
    """What the gateway needs of `hypercache.consensus.driver.Consensus`."""

    def propose(self, data: bytes) -> Deferred[bytes]:
        """Propose an entry; fires with its answer."""
        ...

    def read(self) -> Deferred[None]:
        """Fire when what this node has applied may be read."""
        ...

    def turn(self) -> None:
        """Do what is to be done for all that was proposed and is to be read: no more comes in this turn of the reactor."""
        ...


class Gateway:
    """Takes commands on stores of level raft to the log, and their answers back.

    What waits for the log is bounded there (`BusyError`), and a connection has one run of commands out at most. While much is under
    way already, a few small writes wait for more, `RAFT_GATHER_SECONDS` at most: a proposal costs every member as much as twenty
    writes in one do, and clients that fall into small groups would stay there.

    Args:
        log: the log.
        stores: the stores, which are opened to clients.
        clock: the reactor.
    """

    def __init__(self, log: Log, stores: RaftStores, clock: Any) -> None:
        self._log = log
        self._clock = clock
        self._call: Any = None
        self._units: list[bytes] = []
        self._writers: list[_Writer] = []
        self._size = 0
        # How many runs of commands are in the log and not answered; the end of the time for which others wait for more.
        self._under_way = 0
        self._held: Any = None
        self._readers: list[Callable[[str | None], None]] = []
        self.writes = stores.writes
        stores.open(lambda number: _StoreLog(self, number))

    def write(self, store: int, resp: int, requests: list[list[bytes]], done: Callable[[Sequence[bytes] | str], None]) -> None:
        """Have commands applied, in this order and directly after each other.

        Args:
            store: the store's number.
            resp: the protocol version of the replies.
            requests: the commands, each with its arguments.
            done: called later, with a reply for each, or the error line for all.
        """
        unit = encode_unit(store, resp, requests)
        if self._size and self._size + len(unit) > RAFT_APPEND_MAX_BYTES:
            self._propose()
        self._units.append(unit)
        self._writers.append((len(requests), done))
        self._size += len(unit)
        if self._call is None:
            self._call = self._clock.callLater(0, self._flush)

    def read(self, done: Callable[[str | None], None]) -> None:
        """Call ``done`` later: with None when this node may be read, else with the error line."""
        self._readers.append(done)
        if self._call is None:
            self._call = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._call = None
        if self._units:
            if self._suffices:
                self._propose()
            elif self._held is None:
                self._held = self._clock.callLater(RAFT_GATHER_SECONDS, self._let_go)
        if self._readers:
            readers, self._readers = self._readers, []
            self._log.read().addCallbacks(_let_read, _refuse_reads, callbackArgs=(readers,), errbackArgs=(readers,))
        self._log.turn()

    @property
    def _suffices(self) -> bool:
        """Whether what waits is worth a proposal, given what is under way."""
        return 2 * len(self._units) >= self._under_way or self._size >= RAFT_GATHER_BYTES

    def _let_go(self) -> None:
        self._held = None
        self._propose()
        self._log.turn()

    def _propose(self) -> None:
        units, self._units = self._units, []
        writers, self._writers = self._writers, []
        self._size = 0
        self._under_way += len(units)
        if self._held is not None:
            self._held.cancel()
            self._held = None
        answer = self._log.propose(batch_entry(units))
        answer.addBoth(self._returned, len(units))
        answer.addCallbacks(_answer, _refuse_writes, callbackArgs=(writers,), errbackArgs=(writers,))

    def _returned(self, answer: Any, count: int) -> Any:
        self._under_way -= count
        if self._held is not None and self._suffices:
            # Not at once: who gets an answer now is likely to send the next write.
            self._held.reset(RAFT_GATHER_AGAIN_SECONDS)
        return answer


class _StoreLog:
    """One store's way into the log (`hypercache.resp.contracts.StoreLog`)."""

    __slots__ = ("_gateway", "_number", "_writes", "read")

    def __init__(self, gateway: Gateway, number: int) -> None:
        self._gateway = gateway
        self._number = number
        self._writes = gateway.writes
        self.read = gateway.read

    def refuses(self, entry: Command, request: list[bytes]) -> str | None:
        """Refuse what is too large for an entry, and writes that other members may not know."""
        if sum(map(len, request)) > RAFT_COMMAND_MAX_BYTES:
            return f"ERR a command on a store of level raft has at most {RAFT_COMMAND_MAX_BYTES} bytes"
        if entry.name not in self._writes and "write" in entry.flags:
            return f"ERR '{entry.name}' comes from a plug-in; it does not run on a store of level raft"
        return None

    def write(self, resp: int, requests: list[list[bytes]], done: Callable[[Sequence[bytes] | str], None]) -> None:
        """Have writes applied."""
        self._gateway.write(self._number, resp, requests, done)


def _answer(answer: bytes, writers: list[_Writer]) -> None:
    try:
        replies = decode_answer(answer)
    except MalformedMessageError as fault:
        _log.error("{fault}", fault=fault)
        replies = []
    if [len(each) for each in replies] != [count for count, _ in writers]:
        _tell(_BROKEN, [done for _, done in writers])
        return
    for (_, done), unit in zip(writers, replies, strict=True):
        try:
            done(unit)
        except Exception:  # noqa: BLE001 - one connection's bug must not leave the others without replies
            _log.failure("cannot reply to a client")


def _refuse_writes(failure: Failure, writers: list[_Writer]) -> None:
    _tell(refusal_line(failure, UNKNOWN), [done for _, done in writers])


def _let_read(_: None, readers: list[Callable[[str | None], None]]) -> None:
    _tell(None, readers)


def _refuse_reads(failure: Failure, readers: list[Callable[[str | None], None]]) -> None:
    _tell(refusal_line(failure, NO_LEADER), readers)


def refusal_line(failure: Failure, otherwise: str) -> str:
    """Return the error line for a proposal or a read that failed.

    Args:
        failure: why.
        otherwise: the line where it is not known whether it happened.
    """
    if failure.check(NotLeaderError):
        return NO_LEADER
    if failure.check(BusyError):
        return BUSY
    if not failure.check(OutcomeUnknownError):
        _log.failure("a proposal or a read failed", failure)
    return otherwise


def _tell(outcome: str | None, everybody: Sequence[Callable[[Any], None]]) -> None:
    for done in everybody:
        try:
            done(outcome)
        except Exception:  # noqa: BLE001 - one connection's bug must not leave the others without replies
            _log.failure("cannot reply to a client")
