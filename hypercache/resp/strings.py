"""The strings family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import (
    EXPIRY_UNITS,
    GETEX_OPTIONS,
    INT64_MAX,
    INT64_MIN,
    SET_OPTIONS,
    absolute_deadline,
    add_floats,
    option_deadline,
    parse_int,
    set_options,
    slice_bounds,
)
from hypercache.resp.replies import EMPTY_BULK, OK, ONE, ZERO, bulk, bulk_or_nil, integer, nil
from hypercache.resp.table import Command, command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

_GROUP: Final = "string"
_KEY: Final = (1, 1, 1)
_TOO_LONG: Final = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"


def read(session: Session, key: bytes) -> bytes | None:
    """Return a value; it counts as used unless the client asked that its reads do not."""
    return session.store.peek(key) if session.no_touch else session.store.get(key)


def check_length(session: Session, length: int) -> None:
    """Refuse a value that is longer than any may be.

    Raises:
        CommandError: it is.
    """
    if length > session.server.value_max_bytes:
        raise CommandError(_TOO_LONG)


@command("get", arity=2, flags="readonly fast", keys=_KEY, group=_GROUP, summary="Returns the string value of a key.")
def get(session: Session, args: list[bytes]) -> bytes:
    """Answer the value."""
    return bulk_or_nil(session.resp, read(session, args[1]))


@command("set", arity=-3, flags="write denyoom", keys=_KEY, group=_GROUP, summary="Sets the string value of a key.")
def set_(session: Session, args: list[bytes]) -> bytes:
    """Set a value: ``SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]``."""
    store = session.store
    key, value = args[1], args[2]
    if len(args) == 3:
        store.put(key, value)
        return OK
    condition, answers_old, expiry, argument = set_options(args, 3, SET_OPTIONS)
    deadline = option_deadline(expiry, argument, store.now_ms, "set") if expiry in EXPIRY_UNITS else 0
    old = store.get(key) if answers_old else None
    if condition and store.contains(key) == (condition == b"NX"):
        return bulk_or_nil(session.resp, old)
    if expiry == b"KEEPTTL":
        store.replace(key, value)
    else:
        store.put(key, value, deadline)
    return bulk_or_nil(session.resp, old) if answers_old else OK


@command(
    "getex",
    arity=-2,
    flags="write fast",
    keys=_KEY,
    group=_GROUP,
    since="6.2.0",
    summary="Returns the string value of a key after setting its expiration time.",
)
def getex(session: Session, args: list[bytes]) -> bytes:
    """Answer the value and change when it expires: ``GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]``."""
    _, _, expiry, argument = set_options(args, 2, GETEX_OPTIONS)
    store = session.store
    value = read(session, args[1])
    if value is None:
        return nil(session.resp)
    if expiry in EXPIRY_UNITS:
        store.set_deadline(args[1], option_deadline(expiry, argument, store.now_ms, "getex"))
    elif expiry and store.deadline(args[1]):
        store.set_deadline(args[1], 0)
    return bulk(value)


@command(
    "getdel",
    arity=2,
    flags="write fast",
    keys=_KEY,
    group=_GROUP,
    since="6.2.0",
    summary="Returns the string value of a key after deleting the key.",
)
def getdel(session: Session, args: list[bytes]) -> bytes:
    """Answer the value and delete the key."""
    value = session.store.get(args[1])
    session.store.delete(args[1])
    return bulk_or_nil(session.resp, value)


@command(
    "getset",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    summary="Returns the previous string value of a key after setting it to a new value.",
)
def getset(session: Session, args: list[bytes]) -> bytes:
    """Set a value, without a deadline, and answer the old one."""
    old = session.store.get(args[1])
    session.store.put(args[1], args[2])
    return bulk_or_nil(session.resp, old)


@command(
    "setnx",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    summary="Sets the string value of a key only when the key doesn't exist.",
)
def setnx(session: Session, args: list[bytes]) -> bytes:
    """Set a value where there is none."""
    if session.store.contains(args[1]):
        return ZERO
    session.store.put(args[1], args[2])
    return ONE


def _set_expiring(session: Session, args: list[bytes], name: str, *, seconds: bool) -> bytes:
    deadline = absolute_deadline(parse_int(args[2]), seconds=seconds, base_ms=session.store.now_ms, name=name)
    session.store.put(args[1], args[3], deadline)
    return OK


@command(
    "setex",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group=_GROUP,
    since="2.0.0",
    summary="Sets the string value and expiration time of a key.",
)
def setex(session: Session, args: list[bytes]) -> bytes:
    """Set a value that lives for some seconds."""
    return _set_expiring(session, args, "setex", seconds=True)


@command(
    "psetex",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group=_GROUP,
    since="2.6.0",
    summary="Sets both string value and expiration time in milliseconds of a key.",
)
def psetex(session: Session, args: list[bytes]) -> bytes:
    """Set a value that lives for some milliseconds."""
    return _set_expiring(session, args, "psetex", seconds=False)


@command(
    "mget", arity=-2, flags="readonly fast", keys=(1, -1, 1), group=_GROUP, summary="Returns the string values of one or more keys."
)
def mget(session: Session, args: list[bytes]) -> bytes:
    """Answer the values of several keys."""
    get = session.store.peek if session.no_touch else session.store.get
    null = nil(session.resp)
    parts = [b"*%d\r\n" % (len(args) - 1)]
    for key in args[1:]:
        value = get(key)
        parts.append(null if value is None else b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(parts)


def _pairs(args: list[bytes], name: str) -> list[tuple[bytes, bytes]]:
    if not len(args) % 2:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
    return list(zip(args[1::2], args[2::2], strict=True))


@command(
    "mset",
    arity=-3,
    flags="write denyoom",
    keys=(1, -1, 2),
    group=_GROUP,
    since="1.0.1",
    summary="Sets the string values of one or more keys.",
)
def mset(session: Session, args: list[bytes]) -> bytes:
    """Set several values."""
    put = session.store.put
    for key, value in _pairs(args, "mset"):
        put(key, value)
    return OK


@command(
    "msetnx",
    arity=-3,
    flags="write denyoom",
    keys=(1, -1, 2),
    group=_GROUP,
    since="1.0.1",
    summary="Sets the string values of keys only when none of them exists.",
)
def msetnx(session: Session, args: list[bytes]) -> bytes:
    """Set several values, or none where any of the keys exists."""
    pairs = _pairs(args, "msetnx")
    if any(session.store.contains(key) for key, _ in pairs):
        return ZERO
    for key, value in pairs:
        session.store.put(key, value)
    return ONE


def _increment(session: Session, key: bytes, amount: int) -> bytes:
    store = session.store
    value = store.peek(key)
    number = amount if value is None else parse_int(value) + amount
    if not INT64_MIN <= number <= INT64_MAX:
        raise CommandError("ERR increment or decrement would overflow")
    store.replace(key, b"%d" % number)
    return integer(number)


def _counter(name: str, summary: str, sign: int) -> Command:
    def step(session: Session, args: list[bytes]) -> bytes:
        return _increment(session, args[1], sign)

    return command(name, arity=2, flags="write denyoom fast", keys=_KEY, group=_GROUP, summary=summary)(step)


INCR = _counter("incr", "Increments the integer value of a key by one.", 1)
DECR = _counter("decr", "Decrements the integer value of a key by one.", -1)


@command(
    "incrby",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    summary="Increments the integer value of a key by a number.",
)
def incrby(session: Session, args: list[bytes]) -> bytes:
    """Add to an integer."""
    return _increment(session, args[1], parse_int(args[2]))


@command(
    "decrby",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    summary="Decrements a number from the integer value of a key.",
)
def decrby(session: Session, args: list[bytes]) -> bytes:
    """Subtract from an integer."""
    amount = parse_int(args[2])
    if amount == INT64_MIN:
        raise CommandError("ERR decrement would overflow")
    return _increment(session, args[1], -amount)


@command(
    "incrbyfloat",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    since="2.6.0",
    summary="Increments the floating point value of a key by a number.",
)
def incrbyfloat(session: Session, args: list[bytes]) -> bytes:
    """Add to a number, with the precision of Redis' long double."""
    value = session.store.peek(args[1])
    result = add_floats(b"0" if value is None else value, args[2])
    session.store.replace(args[1], result)
    return bulk(result)


@command(
    "append",
    arity=3,
    flags="write denyoom fast",
    keys=_KEY,
    group=_GROUP,
    since="2.0.0",
    summary="Appends a string to the value of a key.",
)
def append(session: Session, args: list[bytes]) -> bytes:
    """Append to a value, or set it; answer its length."""
    old = session.store.peek(args[1]) or b""
    check_length(session, len(old) + len(args[2]))
    session.store.replace(args[1], old + args[2])
    return integer(len(old) + len(args[2]))


@command(
    "strlen",
    arity=2,
    flags="readonly fast",
    keys=_KEY,
    group=_GROUP,
    since="2.2.0",
    summary="Returns the length of a string value.",
)
def strlen(session: Session, args: list[bytes]) -> bytes:
    """Answer the value's length in bytes."""
    return integer(len(read(session, args[1]) or b""))


def _range(session: Session, args: list[bytes]) -> bytes:
    start, end = parse_int(args[2]), parse_int(args[3])
    value = read(session, args[1])
    if not value:
        return EMPTY_BULK
    low, high = slice_bounds(start, end, len(value))
    return bulk(value[low:high])


@command(
    "getrange",
    arity=4,
    flags="readonly",
    keys=_KEY,
    group=_GROUP,
    since="2.4.0",
    summary="Returns a substring of the string stored at a key.",
)
def getrange(session: Session, args: list[bytes]) -> bytes:
    """Answer a part of the value; both ends belong to it."""
    return _range(session, args)


@command("substr", arity=4, flags="readonly", keys=_KEY, group=_GROUP, summary="Returns a substring from a string value.")
def substr(session: Session, args: list[bytes]) -> bytes:
    """Do as GETRANGE, of which it is the old name."""
    return _range(session, args)


@command(
    "setrange",
    arity=4,
    flags="write denyoom",
    keys=_KEY,
    group=_GROUP,
    since="2.2.0",
    summary="Overwrites a part of a string value with another by an offset.",
)
def setrange(session: Session, args: list[bytes]) -> bytes:
    """Overwrite a part of a value, padding with zero bytes; answer its length."""
    offset = parse_int(args[2])
    if offset < 0:
        raise CommandError("ERR offset is out of range")
    patch = args[3]
    old = session.store.peek(args[1]) or b""
    if not patch:
        return integer(len(old))
    end = offset + len(patch)
    check_length(session, end)
    # Views: a long value is copied once, not piece by piece and then as a whole.
    view = memoryview(old)
    session.store.replace(args[1], b"".join((view[:offset], bytes(max(0, offset - len(old))), patch, view[end:])))
    return integer(max(len(old), end))
