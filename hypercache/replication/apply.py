"""Puts a received change into a store (wire.md, section 1; consistency.md, rules 7 to 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from hypercache.limits import CLOCK_SKEW_MAX_SECONDS
from hypercache.replication.feed import FLUSH_COMMAND, RecordLike
from hypercache.replication.stamps import is_too_far_ahead, milliseconds_of
from hypercache.wire import ErrorCode, Operation, Status
from hypercache.wire.messages import ReplicateData, ReplicateResponse

if TYPE_CHECKING:
    from hypercache.wire import Extension

_NS_PER_MS: Final = 1_000_000
_DEFAULT_STORE: Final = "default"
# Plain ints: comparing with a member of an IntEnum is a look-up more, for each message.
_SET: Final = int(Operation.SET)
_DELETE: Final = int(Operation.DELETE)
_EXPIRE: Final = int(Operation.EXPIRE)
_APPLY: Final = int(Operation.APPLY)

DONE: Final = ReplicateResponse(Status.SUCCESS, 0)
RETRY_LATER: Final = ReplicateResponse(Status.RETRY_LATER, 0)
REFUSED: Final = ReplicateResponse(Status.ERROR, ErrorCode.MALFORMED_MESSAGE & 0xFF)
NOT_A_MEMBER: Final = ReplicateResponse(Status.ERROR, ErrorCode.NOT_AUTHORIZED)
NO_STORE: Final = ReplicateResponse(Status.ERROR, ErrorCode.MESSAGE_TOO_LARGE)


class TargetStore(Protocol):
    """What applying needs of a store; `hypercache.store.Store` is the one."""

    maxmemory: int
    dirty: dict[bytes, int] | None

    def put(self, key: bytes, value: bytes, deadline: int = 0) -> None:
        """Set a record under a new stamp of this node."""
        ...

    def delete(self, key: bytes) -> bool:
        """Delete a key under a new stamp of this node."""
        ...

    def set_deadline(self, key: bytes, deadline: int) -> bool:
        """Change a deadline under a new stamp of this node."""
        ...

    def apply_put(self, key: bytes, value: bytes, deadline: int, stamp: int, *, relay: bool = False) -> bool:
        """Take a record unless what is held is as late."""
        ...

    def apply_delete(self, key: bytes, stamp: int, *, relay: bool = False) -> bool:
        """Take a deletion unless what is held is as late."""
        ...

    def apply_deadline(self, key: bytes, deadline: int, stamp: int, follows: int, *, relay: bool = False) -> bool | None:
        """Take a change of deadline; None where the record that it follows is not held."""
        ...

    def apply_flush(self, stamp: int) -> None:
        """Drop everything at or under a stamp."""
        ...

    def record(self, key: bytes) -> RecordLike | None:
        """Return the live record of a key."""
        ...

    def tombstone(self, key: bytes) -> int:
        """Return the stamp under which a key was deleted, 0 where it was not."""
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
        if (keyspace.maxmemory or store.maxmemory) and message.operation == _SET and not keyspace.make_room(store):
            return RETRY_LATER
        if extension is not None and extension.stamp:
            return self._apply_stamped(store, message, extension, now_ms, member=member)
        if member:
            return self._apply_of_base_member(store, message, now_ms)
        # What enters the cluster here is a write of this node; it is stamped here and goes to all members.
        operation = message.operation
        ttl = message.ttl
        if operation == _SET:
            store.put(message.key, message.value, now_ms + -(-ttl // _NS_PER_MS) if ttl else 0)
        elif operation == _DELETE:
            store.delete(message.key)
        elif operation == _EXPIRE:
            store.set_deadline(message.key, now_ms + -(-ttl // _NS_PER_MS) if ttl else 0)
        else:
            return REFUSED
        return DONE

    def _apply_of_base_member(self, store: TargetStore, message: ReplicateData, now_ms: int) -> ReplicateResponse:
        """Apply what a member without stamps sent: it is stamped here, and the member tells the others itself."""
        operation = message.operation
        key = message.key
        deadline = now_ms + -(-message.ttl // _NS_PER_MS) if message.ttl else 0
        if operation == _SET:
            store.apply_put(key, message.value, deadline, store.next_stamp())
        elif operation == _DELETE:
            store.apply_delete(key, store.next_stamp())
        elif operation == _EXPIRE:
            store.apply_deadline(key, deadline, store.next_stamp(), 0)
            return DONE
        else:
            return REFUSED
        _tell_whole(store, key)
        return DONE

    def _apply_stamped(
        self, store: TargetStore, message: ReplicateData, extension: Extension, now_ms: int, *, member: bool
    ) -> ReplicateResponse:
        stamp = extension.stamp
        if is_too_far_ahead(stamp, now_ms, self._skew_max_ms):
            self.skewed += 1
            return RETRY_LATER
        operation = message.operation
        key = message.key
        # The time to live counts from the stamp and is never computed anew (rule 9).
        deadline = milliseconds_of(stamp) + -(-message.ttl // _NS_PER_MS) if message.ttl else 0
        if operation == _SET:
            if store.apply_put(key, message.value, deadline, stamp, relay=not member):
                _tell_whole(store, key)
        elif operation == _DELETE:
            if store.apply_delete(key, stamp, relay=not member):
                _tell_whole(store, key)
        elif operation == _EXPIRE:
            follows = extension.more.follows if extension.more is not None else 0
            if store.apply_deadline(key, deadline, stamp, follows, relay=not member) is None:
                return RETRY_LATER
        elif operation == _APPLY and message.value == FLUSH_COMMAND:
            if not member:
                return NOT_A_MEMBER
            self._apply_flush(store, stamp)
        else:
            return REFUSED
        return DONE

    def _apply_flush(self, store: TargetStore, stamp: int) -> None:
        store.apply_flush(stamp)
        dirty = store.dirty
        if dirty:
            # What the flush has taken is not to be told as a deletion of its own, which would be later than the flush.
            for key in [key for key in dirty if store.record(key) is None and not store.tombstone(key)]:
                del dirty[key]


def _tell_whole(store: TargetStore, key: bytes) -> None:
    """Have peers told the whole of a record, where they were to hear of a change of its deadline that was made before it came."""
    dirty = store.dirty
    if dirty and dirty.get(key):
        dirty[key] = 0
