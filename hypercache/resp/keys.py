"""The keys family, whatever a key holds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import SYNTAX_ERROR, is_integer, parse_int, parse_int32
from hypercache.resp.glob import Glob
from hypercache.resp.replies import OK, ONE, ZERO, array, bulk, bulk_or_nil, bulks, help_lines, integer, nil, simple
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.contracts import StoreLike
    from hypercache.resp.session import Session

_GROUP: Final = "generic"
_EMBEDDED_MAX_BYTES: Final = 44
_CURSOR: Final = re.compile(rb"([+-]?)0*([0-9]{0,20})")
_CURSOR_MAX: Final = (1 << 64) - 1
_LFU_REFUSAL: Final = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between "
    "policies at runtime LRU and LFU data will take some time to adjust."
)
_IDLE_REFUSAL: Final = (
    "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at "
    "runtime LRU and LFU data will take some time to adjust."
)


def look_up(session: Session, key: bytes) -> bytes | None:
    """Return a value without counting the key as used; the look-up itself counts as a hit or a miss, as Redis has it."""
    store = session.store
    value = store.peek(key)
    if value is None:
        store.misses += 1
    else:
        store.hits += 1
    return value


@command("del", arity=-2, flags="write", keys=(1, -1, 1), group=_GROUP, summary="Deletes one or more keys.")
def del_(session: Session, args: list[bytes]) -> bytes:
    """Answer how many of the keys there were."""
    delete = session.store.delete
    return integer(sum([delete(key) for key in args[1:]]))


@command(
    "unlink",
    arity=-2,
    flags="write fast",
    keys=(1, -1, 1),
    group=_GROUP,
    since="4.0.0",
    summary="Asynchronously deletes one or more keys.",
)
def unlink(session: Session, args: list[bytes]) -> bytes:
    """Do as DEL: a value here is one object, and freeing it takes no time worth deferring."""
    delete = session.store.delete
    return integer(sum([delete(key) for key in args[1:]]))


@command(
    "exists", arity=-2, flags="readonly fast", keys=(1, -1, 1), group=_GROUP, summary="Determines whether one or more keys exist."
)
def exists(session: Session, args: list[bytes]) -> bytes:
    """Answer how many of the keys there are; one named twice counts twice."""
    store = session.store
    contains = store.contains
    found = sum([contains(key) for key in args[1:]])
    store.hits += found
    store.misses += len(args) - 1 - found
    return integer(found)


@command(
    "type", arity=2, flags="readonly fast", keys=(1, 1, 1), group=_GROUP, summary="Determines the type of value stored at a key."
)
def type_(session: Session, args: list[bytes]) -> bytes:
    """Answer ``string``, or ``none``."""
    return simple(b"none" if look_up(session, args[1]) is None else b"string")


@command(
    "touch",
    arity=-2,
    flags="readonly fast",
    keys=(1, -1, 1),
    group=_GROUP,
    since="3.2.1",
    summary="Updates the last access time of keys.",
)
def touch(session: Session, args: list[bytes]) -> bytes:
    """Count the keys as used; answer how many there are."""
    get = session.store.get
    return integer(sum([get(key) is not None for key in args[1:]]))


def _move(store: StoreLike, source: bytes, target_store: StoreLike, target: bytes) -> None:
    """Put the record of one key under another, deadline and all."""
    value = store.peek(source)
    assert value is not None
    target_store.put(target, value, store.deadline(source) or 0)


@command("rename", arity=3, flags="write", keys=(1, 2, 1), group=_GROUP, summary="Renames a key and overwrites the destination.")
def rename(session: Session, args: list[bytes]) -> bytes:
    """Move a record to another key, over what is there."""
    if not session.store.contains(args[1]):
        raise CommandError("ERR no such key")
    if args[1] != args[2]:
        _move(session.store, args[1], session.store, args[2])
        session.store.delete(args[1])
    return OK


@command(
    "renamenx",
    arity=3,
    flags="write fast",
    keys=(1, 2, 1),
    group=_GROUP,
    summary="Renames a key only when the target key name doesn't exist.",
)
def renamenx(session: Session, args: list[bytes]) -> bytes:
    """Move a record to another key that does not exist yet."""
    if not session.store.contains(args[1]):
        raise CommandError("ERR no such key")
    if session.store.contains(args[2]):
        return ZERO
    _move(session.store, args[1], session.store, args[2])
    session.store.delete(args[1])
    return ONE


def _numbered_store(session: Session, argument: bytes) -> StoreLike:
    store = session.keyspace.by_index(parse_int32(argument))
    if store is None:
        raise CommandError("ERR DB index is out of range")
    return store


@command(
    "copy",
    arity=-3,
    flags="write denyoom",
    keys=(1, 2, 1),
    group=_GROUP,
    since="6.2.0",
    summary="Copies the value of a key to a new key.",
)
def copy(session: Session, args: list[bytes]) -> bytes:
    """Copy a record: ``COPY source destination [DB number] [REPLACE]``."""
    target_store = session.store
    replace = False
    at = 3
    while at < len(args):
        option = args[at].upper()
        if option == b"REPLACE":
            replace = True
        elif option == b"DB" and at + 1 < len(args):
            at += 1
            target_store = _numbered_store(session, args[at])
        else:
            raise CommandError(SYNTAX_ERROR)
        at += 1
    if target_store is session.store and args[1] == args[2]:
        raise CommandError("ERR source and destination objects are the same")
    if session.store.get(args[1]) is None or (target_store.contains(args[2]) and not replace):
        return ZERO
    _move(session.store, args[1], target_store, args[2])
    return ONE


@command("move", arity=3, flags="write fast", keys=(1, 1, 1), group=_GROUP, summary="Moves a key to another database.")
def move(session: Session, args: list[bytes]) -> bytes:
    """Move a record to another numbered store, where the key is free."""
    target = _numbered_store(session, args[2])
    if target is session.store:
        raise CommandError("ERR source and destination objects are the same")
    if not session.store.contains(args[1]) or target.contains(args[1]):
        return ZERO
    _move(session.store, args[1], target, args[1])
    session.store.delete(args[1])
    return ONE


@command("randomkey", arity=1, flags="readonly", group=_GROUP, summary="Returns a random key name from the database.")
def randomkey(session: Session, args: list[bytes]) -> bytes:
    """Answer any key."""
    return bulk_or_nil(session.resp, session.store.random_key())


@command("keys", arity=2, flags="readonly", group=_GROUP, summary="Returns all key names that match a pattern.")
def keys(session: Session, args: list[bytes]) -> bytes:
    """Answer the keys that match."""
    pattern = Glob(args[1])
    if pattern.matches_all:
        return bulks(list(session.store.keys()))
    return bulks(list(filter(pattern.matches, session.store.keys())))


def _parse_cursor(argument: bytes) -> int:
    """Return a cursor as strtoul reads it: a sign is taken, a negative one wraps around, and no text at all is zero."""
    match = _CURSOR.fullmatch(argument)
    cursor = int(match[2] or b"0") if match else _CURSOR_MAX + 1
    if cursor > _CURSOR_MAX or argument in (b"+", b"-"):
        raise CommandError("ERR invalid cursor")
    return -cursor & _CURSOR_MAX if argument[:1] == b"-" else cursor


@command("scan", arity=-2, flags="readonly", group=_GROUP, since="2.8.0", summary="Iterates over the key names in the database.")
def scan(session: Session, args: list[bytes]) -> bytes:
    """Answer the next cursor and some keys: ``SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]``."""
    cursor = _parse_cursor(args[1])
    count, pattern, kind = 10, None, b"string"
    for at in range(2, len(args), 2):
        name = args[at].upper()
        if at + 1 == len(args):
            raise CommandError(SYNTAX_ERROR)
        value = args[at + 1]
        if name == b"COUNT":
            count = parse_int(value)
            if count < 1:
                raise CommandError(SYNTAX_ERROR)
        elif name == b"MATCH":
            pattern = Glob(value)
        elif name == b"TYPE":
            kind = value.lower()
        else:
            raise CommandError(SYNTAX_ERROR)
    cursor, found = session.store.scan(cursor, count)
    if pattern is not None and not pattern.matches_all:
        found = [key for key in found if pattern.matches(key)]
    if kind != b"string":
        found = []
    return array([bulk(b"%d" % cursor), bulks(found)])


@command("dbsize", arity=1, flags="readonly fast", group="server", summary="Returns the number of keys in the database.")
def dbsize(session: Session, args: list[bytes]) -> bytes:
    """Answer the number of keys."""
    return integer(len(session.store))


def _check_flush(args: list[bytes]) -> None:
    # Both ways are the same here: emptying takes no time, and the memory comes back in the background.
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX_ERROR)


@command("flushdb", arity=-1, flags="write", group="server", summary="Removes all keys from the current database.")
def flushdb(session: Session, args: list[bytes]) -> bytes:
    """Empty the selected store."""
    _check_flush(args)
    session.store.flush()
    return OK


@command("flushall", arity=-1, flags="write", group="server", summary="Removes all keys from all databases.")
def flushall(session: Session, args: list[bytes]) -> bytes:
    """Empty every store that is not kept in a log; in one that is, that one."""
    _check_flush(args)
    for store in session.keyspace.all_stores():
        if store.log is None or store is session.store:
            store.flush()
    return OK


@command(
    "object|encoding",
    arity=3,
    flags="readonly",
    keys=(2, 2, 1),
    group=_GROUP,
    since="2.2.3",
    summary="Returns the internal encoding of a value.",
)
def object_encoding(session: Session, args: list[bytes]) -> bytes:
    """Answer what Redis would call the encoding of a newly set value of that content: ``int``, ``embstr`` or ``raw``.

    In Redis a value that APPEND, SETRANGE or SETBIT made is ``raw`` whatever its length; here nothing but the content is known.
    """
    value = look_up(session, args[2])
    if value is None:
        return nil(session.resp)
    if is_integer(value):
        return bulk(b"int")
    return bulk(b"embstr" if len(value) <= _EMBEDDED_MAX_BYTES else b"raw")


@command(
    "object|freq",
    arity=3,
    flags="readonly",
    keys=(2, 2, 1),
    group=_GROUP,
    since="4.0.0",
    summary="Returns the logarithmic access frequency counter.",
)
def object_freq(session: Session, args: list[bytes]) -> bytes:
    """Answer the use counter, kept under an LFU policy alone."""
    if look_up(session, args[2]) is None:
        return nil(session.resp)
    frequency = session.store.frequency(args[2])
    if frequency is None:
        raise CommandError(_LFU_REFUSAL)
    return integer(frequency)


@command(
    "object|idletime",
    arity=3,
    flags="readonly",
    keys=(2, 2, 1),
    group=_GROUP,
    since="2.2.3",
    summary="Returns the time since the last access.",
)
def object_idletime(session: Session, args: list[bytes]) -> bytes:
    """Answer the seconds since the key was last used."""
    if look_up(session, args[2]) is None:
        return nil(session.resp)
    if session.store.frequency(args[2]) is not None:
        raise CommandError(_IDLE_REFUSAL)
    return integer(session.store.idle_seconds(args[2]) or 0)


@command(
    "object|refcount",
    arity=3,
    flags="readonly",
    keys=(2, 2, 1),
    group=_GROUP,
    since="2.2.3",
    summary="Returns the reference count of a value.",
)
def object_refcount(session: Session, args: list[bytes]) -> bytes:
    """Answer 1: no value is shared."""
    return nil(session.resp) if look_up(session, args[2]) is None else ONE


@command("object|help", arity=2, flags="loading stale", group=_GROUP, since="6.2.0", summary="Returns helpful text.")
def object_help(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines(
        "OBJECT",
        (
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ),
    )


@command(
    "object",
    arity=-2,
    group=_GROUP,
    since="2.2.3",
    summary="A container for object introspection commands.",
    subcommands=(object_encoding, object_freq, object_idletime, object_refcount, object_help),
)
def object_(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'object' command")
