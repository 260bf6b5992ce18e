"""Puts a received change into a store (wire.md, section 1; consistency.md, rules 7 to 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from hypercache.limits import CLOCK_SKEW_MAX_SECONDS
from hypercache.replication.feed import FLUSH_COMMAND
from hypercache.replication.stamps import is_too_far_ahead, milliseconds_of
from hypercache.wire import ErrorCode, Operation, Status
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from hypercache.wire import Extension

_NS_PER_MS: Final = 1_000_000
_DEFAULT_STORE: Final = "default"

DONE: Final = ReplicateResponse(Status.SUCCESS, 0)
RETRY_LATER: Final = ReplicateResponse(Status.RETRY_LATER, 0)
REFUSED: Final = ReplicateResponse(Status.ERROR, ErrorCode.MALFORMED_MESSAGE & 0xFF)
NO_STORE: Final = ReplicateResponse(Status.ERROR, ErrorCode.MESSAGE_TOO_LARGE)


class TargetStore(Protocol):
    """What applying needs of a store; `hypercache.store.Store` is the one."""

    maxmemory: int

    def put(self, key: bytes, value: bytes, deadline: int = 0) -> None:
        """Set a record under a new stamp of this node."""
        ...

    def delete(self, key: bytes) -> bool:
        """Delete a key under a new stamp of this node."""
        ...

    def set_deadline(self, key: bytes, deadline: int) -> bool:
        """Change a deadline under a new stamp of this node."""
        ...

    def apply_put(self, key: bytes, value: bytes, deadline: int, stamp: int) -> bool:
        """Take a record unless what is held is as late."""
        ...

    def apply_delete(self, key: bytes, stamp: int) -> bool:
        """Take a deletion unless what is held is as late."""
        ...

    def apply_deadline(self, key: bytes, deadline: int, stamp: int, follows: int) -> bool | None:
        """Take a change of deadline; None where the record that it follows is not held."""
        ...

    def apply_flush(self, stamp: int) -> None:
        """Drop everything at or under a stamp."""
        ...

    def next_stamp(self) -> int:
        """Return a new stamp of this node."""
        ...


class TargetKeyspace(Protocol):
    """What applying needs of the stores; `hypercache.store.Keyspace` is the one."""

    now_ms: int
    maxmemory: int

    def advance(self, now_ms: int) -> None:
        """Set the time."""
        ...

    def by_name(self, name: str, *, create: bool = False) -> TargetStore | None:
        """Return a store."""
        ...

    def make_room(self, store: Any) -> bool:
        """Evict until the bounds of memory hold."""
        ...


class Applier:
    """Applies received changes to the stores of this node.

    Args:
        keyspace: the stores.
        skew_max_ms: a stamp further ahead than this is put off, in milliseconds.

    Attributes:
        skewed: stamps that were too far ahead.
    """

    def __init__(self, keyspace: TargetKeyspace, skew_max_ms: int = int(CLOCK_SKEW_MAX_SECONDS * 1000)) -> None:
        self._keyspace = keyspace
        self._skew_max_ms = skew_max_ms
        self.skewed = 0

    def apply(self, message: ReplicateData, extension: Extension | None, now_ms: int, *, member: bool) -> ReplicateResponse:
        """Apply one change.

        Args:
            message: the change.
            extension: what came with it; None from a base peer.
            now_ms: Unix milliseconds.
            member: whether the sender is a member, and so tells the other members itself.

        Returns:
            The answer.
        """
        keyspace = self._keyspace
        if keyspace.now_ms != now_ms:
            keyspace.advance(now_ms)
        store = keyspace.by_name(message.store or _DEFAULT_STORE, create=True)
        if store is None:
            return NO_STORE
        if (keyspace.maxmemory or store.maxmemory) and message.operation == Operation.SET and not keyspace.make_room(store):
            return RETRY_LATER
        if extension is None or not extension.stamp:
            return self._apply_unstamped(store, message, now_ms, member=member)
        return self._apply_stamped(store, message, extension, now_ms)

    def _apply_unstamped(self, store: TargetStore, message: ReplicateData, now_ms: int, *, member: bool) -> ReplicateResponse:
        """Apply what a base peer sent: it is stamped here; what does not come from a member enters the cluster here."""
        operation = message.operation
        deadline = now_ms + -(-message.ttl // _NS_PER_MS) if message.ttl else 0
        if operation == Operation.SET:
            if member:
                store.apply_put(message.key, message.value, deadline, store.next_stamp())
            else:
                store.put(message.key, message.value, deadline)
        elif operation == Operation.DELETE:
            if member:
                store.apply_delete(message.key, store.next_stamp())
            else:
                store.delete(message.key)
        elif operation == Operation.EXPIRE:
            if member:
                store.apply_deadline(message.key, deadline, store.next_stamp(), 0)
            else:
                store.set_deadline(message.key, deadline)
        else:
            return REFUSED
        return DONE

    def _apply_stamped(self, store: TargetStore, message: ReplicateData, extension: Extension, now_ms: int) -> ReplicateResponse:
        stamp = extension.stamp
        if is_too_far_ahead(stamp, now_ms, self._skew_max_ms):
            self.skewed += 1
            return RETRY_LATER
        operation = message.operation
        # The time to live counts from the stamp and is never computed anew (rule 9).
        deadline = milliseconds_of(stamp) + -(-message.ttl // _NS_PER_MS) if message.ttl else 0
        if operation == Operation.SET:
            store.apply_put(message.key, message.value, deadline, stamp)
        elif operation == Operation.DELETE:
            store.apply_delete(message.key, stamp)
        elif operation == Operation.EXPIRE:
            follows = extension.more.follows if extension.more is not None else 0
            if store.apply_deadline(message.key, deadline, stamp, follows) is None:
                return RETRY_LATER
        elif operation == Operation.APPLY and message.value == FLUSH_COMMAND:
            store.apply_flush(stamp)
        else:
            return REFUSED
        return DONE
