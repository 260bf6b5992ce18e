"""The expiry family: when keys go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import INT64_MAX, INT64_MIN, parse_int
from hypercache.resp.replies import MINUS_ONE, MINUS_TWO, ONE, ZERO, integer
from hypercache.resp.table import Command, command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

_GROUP: Final = "generic"
_CONDITIONS: Final = frozenset((b"NX", b"XX", b"GT", b"LT"))


def _conditions(args: list[bytes]) -> set[bytes]:
    chosen = set()
    for arg in args[3:]:
        condition = arg.upper()
        if condition not in _CONDITIONS:
            raise CommandError(f"ERR Unsupported option {arg.decode('utf-8', 'surrogateescape')}")
        chosen.add(condition)
    if b"NX" in chosen and len(chosen) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= chosen:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return chosen


def _set_expiry(session: Session, args: list[bytes], name: str, *, seconds: bool, relative: bool) -> bytes:
    conditions = _conditions(args)
    amount = parse_int(args[2])
    base = session.store.now_ms if relative else 0
    deadline = amount * 1000 if seconds else amount
    if not INT64_MIN <= deadline <= INT64_MAX or deadline > INT64_MAX - base:
        raise CommandError(f"ERR invalid expire time in '{name}' command")
    # 0 means "no deadline" in a store; whatever is not after now deletes all the same.
    deadline = deadline + base or -1
    current = session.store.deadline(args[1])
    if current is None:
        return ZERO
    refused = (
        (b"NX" in conditions and current)
        or (b"XX" in conditions and not current)
        or (b"GT" in conditions and (not current or deadline <= current))
        or (b"LT" in conditions and current and deadline >= current)
    )
    if refused:
        return ZERO
    session.store.set_deadline(args[1], deadline)
    return ONE


def _setter(name: str, since: str, summary: str, *, seconds: bool, relative: bool) -> Command:
    def expire(session: Session, args: list[bytes]) -> bytes:
        return _set_expiry(session, args, name, seconds=seconds, relative=relative)

    declare = command(name, arity=-3, flags="write fast", keys=(1, 1, 1), group=_GROUP, since=since, summary=summary)
    return declare(expire)


EXPIRE = _setter("expire", "1.0.0", "Sets the expiration time of a key in seconds.", seconds=True, relative=True)
PEXPIRE = _setter("pexpire", "2.6.0", "Sets the expiration time of a key in milliseconds.", seconds=False, relative=True)
EXPIREAT = _setter("expireat", "1.2.0", "Sets the expiration time of a key to a Unix timestamp.", seconds=True, relative=False)
PEXPIREAT = _setter(
    "pexpireat", "2.6.0", "Sets the expiration time of a key to a Unix milliseconds timestamp.", seconds=False, relative=False
)


def _getter(name: str, since: str, summary: str, *, seconds: bool, relative: bool) -> Command:
    def ttl(session: Session, args: list[bytes]) -> bytes:
        store = session.store
        deadline = store.deadline(args[1])
        if deadline is None:
            store.misses += 1
            return MINUS_TWO
        store.hits += 1
        if not deadline:
            return MINUS_ONE
        # The time of a store of a log is that of its last entry, which may be long ago.
        shown = max(0, deadline - max(store.now_ms, session.keyspace.now_ms)) if relative else deadline
        return integer((shown + 500) // 1000 if seconds else shown)

    return command(name, arity=2, flags="readonly fast", keys=(1, 1, 1), group=_GROUP, since=since, summary=summary)(ttl)


TTL = _getter("ttl", "1.0.0", "Returns the expiration time in seconds of a key.", seconds=True, relative=True)
PTTL = _getter("pttl", "2.6.0", "Returns the expiration time in milliseconds of a key.", seconds=False, relative=True)
EXPIRETIME = _getter(
    "expiretime", "7.0.0", "Returns the expiration time of a key as a Unix timestamp.", seconds=True, relative=False
)
PEXPIRETIME = _getter(
    "pexpiretime", "7.0.0", "Returns the expiration time of a key as a Unix milliseconds timestamp.", seconds=False, relative=False
)


@command(
    "persist",
    arity=2,
    flags="write fast",
    keys=(1, 1, 1),
    group=_GROUP,
    since="2.2.0",
    summary="Removes the expiration time of a key.",
)
def persist(session: Session, args: list[bytes]) -> bytes:
    """Answer 1 where the key had a deadline, which is gone now."""
    if not session.store.deadline(args[1]):
        return ZERO
    session.store.set_deadline(args[1], 0)
    return ONE
