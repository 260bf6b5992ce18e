"""What the RESP engine needs of the node, as structural types.

The pure packages do not import each other; whoever wires a node hands in objects of these shapes. A store that is handed back to
its keyspace is typed Any: the keyspace takes its own kind of store alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hypercache.resp.definitions import MemberFacts, StoreFacts, StoreRequest
    from hypercache.resp.session import Session
    from hypercache.resp.table import Command


class StoreLog(Protocol):
    """What the commands of a store go through that a log changes.

    No ``done`` is called before the call that took it has returned; each is called once.
    """

    def refuses(self, entry: Command, request: list[bytes]) -> str | None:
        """Return the error line where a command on data may not go through this log, else None."""
        ...

    def write(self, resp: int, requests: list[list[bytes]], done: Callable[[Sequence[bytes] | str], None]) -> None:
        """Have writes applied in their order, nothing of others in between.

        Args:
            resp: the protocol version of the replies.
            requests: the commands, each with its arguments.
            done: called with a reply for each, or with the error line that answers them all.
        """
        ...

    def read(self, done: Callable[[str | None], None]) -> None:
        """Call ``done`` when reads of the store are linearizable: with None, or the error line that answers them."""
        ...


class NamedStores(Protocol):
    """The stores that the cluster has defined."""

    def create(self, request: StoreRequest, done: Callable[[bytes], None]) -> None:
        """Have a store made; ``done`` is called later, with the reply."""
        ...

    def drop(self, name: str, done: Callable[[bytes], None]) -> None:
        """Have a store dropped; ``done`` is called later, with the reply."""
        ...

    def find(self, name: str, done: Callable[[bytes | None], None]) -> None:
        """Bring this node level with the cluster; ``done`` is called later, with None, or an error reply where that failed."""
        ...

    def all(self) -> Iterable[StoreFacts]:
        """Return what is defined, by name."""
        ...


class ClusterMembers(Protocol):
    """The members of the cluster."""

    def all(self) -> Iterable[MemberFacts]:
        """Return who is a member, by id."""
        ...

    def remove(self, node_id: int, done: Callable[[bytes], None]) -> None:
        """Have a member (0: this node) leave for good; ``done`` is called later, with the reply."""
        ...

    def transfer(self, node_id: int, done: Callable[[bytes], None]) -> None:
        """Hand the leadership to another voter; ``done`` is called later, with the reply."""
        ...


class StoreLike(Protocol):
    """A named store; `hypercache.store.Store` is the one."""

    name: str
    log: StoreLog | None
    now_ms: int
    maxmemory: int
    volatile: int
    hits: int
    misses: int
    expired: int
    evicted: int

    def __len__(self) -> int: ...
    def get(self, key: bytes) -> bytes | None: ...
    def peek(self, key: bytes) -> bytes | None: ...
    def contains(self, key: bytes) -> bool: ...
    def touch(self, key: bytes) -> bool: ...
    def put(self, key: bytes, value: bytes, deadline: int = 0) -> None: ...
    def replace(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def set_deadline(self, key: bytes, deadline: int) -> bool: ...
    def deadline(self, key: bytes) -> int | None: ...
    def idle_seconds(self, key: bytes) -> int | None: ...
    def frequency(self, key: bytes) -> int | None: ...
    def memory_of(self, key: bytes) -> int | None: ...
    def average_ttl_ms(self) -> int: ...
    def keys(self) -> Iterator[bytes]: ...
    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]: ...
    def random_key(self) -> bytes | None: ...
    def flush(self) -> None: ...
    def used_bytes(self) -> int: ...


class KeyspaceLike(Protocol):
    """The stores of a node; `hypercache.store.Keyspace` is the one."""

    now_ms: int
    maxmemory: int
    databases: int
    peak_bytes: int

    def advance(self, now_ms: int) -> None: ...
    def by_index(self, index: int) -> StoreLike | None: ...
    def named(self, name: str) -> StoreLike | None: ...
    def index_of(self, store: Any) -> int: ...
    def all_stores(self) -> Iterable[StoreLike]: ...
    def used_bytes(self) -> int: ...
    def make_room(self, store: Any) -> bool: ...


class Client(Protocol):
    """A connection at the RESP door, as CLIENT LIST and CLIENT KILL see it."""

    @property
    def session(self) -> Session: ...
    def describe(self) -> dict[str, str | int]:
        """Return what CLIENT LIST shows of the connection itself, in its order: the addresses, the descriptor, the buffers."""
        ...

    def kill(self) -> None:
        """Close the connection at once."""
        ...


class Clients(Protocol):
    """All connections at the RESP doors of a node."""

    accepted: int
    rejected: int
    bytes_in: int
    bytes_out: int
    cut: int

    def __iter__(self) -> Iterator[Client]: ...
    def __len__(self) -> int: ...
    def reset_counters(self) -> None: ...
