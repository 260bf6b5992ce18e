"""Commands to try on a key: a table for every state of the key, and a strategy for whole sequences."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

STATES: Final[dict[str, list[list[bytes]]]] = {
    "missing": [],
    "integer": [[b"set", b"K", b"10"]],
    "largest integer": [[b"set", b"K", b"9223372036854775807"]],
    "smallest integer": [[b"set", b"K", b"-9223372036854775808"]],
    "float": [[b"set", b"K", b"3.25"]],
    "text": [[b"set", b"K", b"ohmytext"]],
    "empty": [[b"set", b"K", b""]],
    "binary": [[b"set", b"K", b"\xff\xf0\x00\x0f\x00"]],
    "44 bytes": [[b"set", b"K", b"x" * 44]],
    "45 bytes": [[b"set", b"K", b"x" * 45]],
    "ones": [[b"set", b"K", b"\xff" * 9]],
    "almost an integer": [[b"set", b"K", b"+5"]],
    "infinite": [[b"set", b"K", b"-inf"]],
    "expiring": [[b"set", b"K", b"12", b"pxat", b"4102444800123"]],
    "with a neighbour": [[b"set", b"K", b"v"], [b"set", b"L", b"w", b"exat", b"4102444900"], [b"set", b"M", b"7"]],
}
"""How a key comes to be; K is the key that the commands are about, L and M are others."""

LIMITS: Final = "0 1 -1 9223372036854775807 -9223372036854775808 9223372036854775808 2147483648 x '' 1.0 +1 01 -0"
LIFETIMES: Final = "100000 0 -1 9223372036854775 9223372036854776 9223372036854775807 -9223372036854775808 x '' 1.5"
MOMENTS: Final = "4102444800 4102444801 4102444801000 1 0 -1 9223372036854775 9223372036854776 -9223372036854776 x"
FLOATS: Final = "0.1 -3.25 1e3 .5 5. 0x1p3 1e4932 1e-4940 1e-5000 inf -inf nan 1e 5e-18 6e-18 -1e-18 0.30000000000000004 '' x"

TEMPLATES: Final = (
    # strings
    "get K|get|get K x|strlen K|strlen|getdel K|getset K 5|getset K|append K abc|append K ''|append K|set K|set K v|set K v nx",
    "set K v XX|set K v get|set K v nx get|set K v xx get|set K v keepttl|set K v nx xx|set K v xx nx|set K v keepttl get xx",
    "set K v keepttl ex 5|set K v ex 5 keepttl|set K v persist|set K v bad|set K v nx nx|set K v get get|set K v ex",
    "set K v ex 1000 px 1000|set K v ex 1000 ex 2000|set K v ex 1000 nx get|set K v px x get|set K v EXAT 4102444800 XX",
    f"set K v ex <{LIFETIMES}>|set K v px <{LIFETIMES}>|set K v exat <{MOMENTS}>|set K v pxat <{MOMENTS}>",
    f"setex K <{LIFETIMES}> v|psetex K <{LIFETIMES}> v|setex K 100|psetex K 100 v x|setnx K v|setnx K|getex K|getex K persist",
    f"getex K ex <{LIFETIMES}>|getex K px <{LIFETIMES}>|getex K exat <{MOMENTS}>|getex K pxat <{MOMENTS}>|getex K ex",
    "getex K ex 100 persist|getex K persist ex 100|getex K persist persist|getex K nx|getex K get|getex K keepttl|getex K bad",
    "getex K ex 100 px 100|getex K ex 100 ex 2000|mget|mget K|mget K L K nokey|mset|mset K|mset K 1|mset K 1 L",
    f"mset K 1 L 2 K 3|msetnx K 1 L 2|msetnx L 1 N 2|msetnx K|msetnx N 1 N 2|incr K|incr|incr K 1|decr K|incrby K <{LIMITS}>",
    f"decrby K <{LIMITS}>|incrby K|decrby K 1 2|incrbyfloat K <{FLOATS}>|incrbyfloat K|getrange K 0 <{LIMITS}>",
    f"getrange K <{LIMITS}> -1|getrange K 2 4|getrange K -4 -2|getrange K -2 -4|getrange K 1|substr K 1 3|setrange K 0 zz",
    "setrange K 12 zz|setrange K 3 ''|setrange K -1 z|setrange K x z|setrange K 536870911 zz|setrange K 0",
    "setrange K 9223372036854775807 z|lcs K L|lcs K L len|lcs K L idx|lcs K K idx withmatchlen",
    f"lcs K L idx minmatchlen <{LIMITS}>|lcs K L len idx|lcs K L bad|lcs K|lcs K L minmatchlen|lcs K L withmatchlen",
    "lcs K L len withmatchlen minmatchlen 2",
    # bits
    f"setbit K 3 1|setbit K 100 0|setbit K 3 <2 x '' -1 01>|setbit K <-1 4294967296 x ''> 1|setbit K 3|getbit K <{LIMITS}>",
    f"getbit K 3|bitcount K|bitcount K 0|bitcount K 0 <{LIMITS}>|bitcount K <{LIMITS}> -1|bitcount K 1 -2 bit",
    "bitcount K 1 -2 BYTE|bitcount K 1 2 bad|bitcount K -2 -5 bad|bitcount K 1 2 bit x|bitcount K 5 30 bit|bitcount",
    f"bitpos K <0 1 2 x ''>|bitpos K 0 <{LIMITS}>|bitpos K 1 0 <{LIMITS}>|bitpos K 0 <{LIMITS}> -1 bit|bitpos K 1 1 -1 byte",
    "bitpos K 1 1 2 bad|bitpos K 1 1 2 bit x|bitpos K 0 0 0|bitpos K 0 -1|bitpos K 1 9 20 bit|bitpos K 0 5 2|bitpos K",
    "bitop and d K L|bitop OR d K L M|bitop xor d K K|bitop xor K K L|bitop not d K|bitop not d K L|bitop bad d K|bitop and d",
    "bitop not K K|bitfield K|bitfield K get u8 0|bitfield K get i64 3 get u63 70",
    "bitfield K get <u64 i65 u0 i0 x8 u '' U8 i08 i+8 i-1> 0",
    "bitfield K get u8 <-1 x '' # #x #-1 4294967296 9223372036854775807>|bitfield K set u8 #1 <255 256 -1 x ''>",
    "bitfield K set i5 3 <15 16 -17>|bitfield K overflow <sat fail wrap bad> incrby i8 4 100 incrby i8 4 100 incrby u2 9 -3",
    "bitfield K overflow|bitfield K get u8|bitfield K set u8 0",
    "bitfield K overflow fail set u4 50 99 overflow sat set u4 50 99 overflow wrap set u4 50 99 get u4 50",
    "bitfield K incrby i64 0 9223372036854775807|bitfield K bad|bitfield K incrby u8 0 x|bitfield_ro K get u8 #1",
    "bitfield_ro K set u8 0 1|bitfield_ro K|bitfield_ro K overflow sat get u8 0",
    # expiry
    f"expire K <{LIFETIMES}>|pexpire K <{LIFETIMES}>|expireat K <{MOMENTS}>|pexpireat K <{MOMENTS}>|expire K|pexpireat K",
    "expireat K 4102444799 <nx xx gt lt NX Lt bad>|expireat K 4102444801 <nx xx gt lt>|pexpireat K 4102444800123 <gt lt>",
    "pexpireat K 0 lt|expire K 100 nx xx|expire K 100 nx gt|expire K 100 gt lt|expireat K 4102444802 xx gt|expire K 100 xx bad",
    "expire K x bad|expire K 100 nx nx|pexpireat K -9223372036854775808 lt|pexpireat K -5 gt|ttl K|pttl K|expiretime K",
    "pexpiretime K|ttl|pttl K x|persist K|persist",
    # keys
    "del|del K|del K L K nokey|unlink K L|exists K L K|exists|type K|type|touch K nokey K|touch|rename K N|rename K L",
    "rename L K|rename K K|rename K|renamenx K N|renamenx K L|renamenx K K|renamenx L|copy K N|copy K L|copy L K replace",
    "copy K L REPLACE|copy K K|copy K K db 1|copy K N db 1|copy K N db <0 15 16 -1 x '' 2147483648>|copy K N db|copy K N bad",
    "copy K N db 1 replace db 0|copy K|move K 1|move K 0|move K <16 -1 x 2147483648>|move K|keys *|keys [K-L]|keys ?",
    "keys nothing*|keys [^K]|keys|keys * x|dbsize|dbsize x|scan 0|scan 0 match K* count 100|scan 0 count <0 -1 x 1000>",
    "scan 0 type <string STRING hash bad>|scan <x '' -0 ' 0' 18446744073709551616 1x>|scan 0 match|scan 0 bad x",
    "scan 0 count x bad|scan|scan 0 count 1000 match ** type string|scan 0 type hash match K|object encoding K",
    "object encoding nokey|object encoding|object encoding K x|object refcount nokey|object freq K|object freq nokey",
    "object idletime K|object idletime nokey|object help|object help x|object bad|object|object ENCODING K|flushdb",
    "flushdb async|flushdb SYNC|flushdb bad|flushdb async sync|flushall|flushall sync|flushall x",
)


def _expanded(template: str) -> list[str]:
    if "<" not in template:
        return [template]
    head, _, rest = template.partition("<")
    choices, _, tail = rest.partition(">")
    return [line for choice in _choices(choices) for line in _expanded(head + choice + tail)]


def _choices(text: str) -> list[str]:
    return [choice.replace("\x1f", " ") for choice in text.replace("' 0'", "'\x1f0'").split(" ")]


def _words(line: str) -> list[bytes]:
    return [word.strip("'").replace("\x1f", " ").encode() for word in line.replace("' 0'", "'\x1f0'").split(" ")]


COMMANDS: Final = [_words(line) for row in TEMPLATES for template in row.split("|") for line in _expanded(template)]

_KEYS = st.sampled_from([b"a", b"b", b"c", b""])
_VALUES = st.sampled_from(
    [b"", b"10", b"-5", b"3.5", b"hello", b"\xff\x00\xf0", b"x" * 44, b"9223372036854775807", b"+1"]
) | st.binary(max_size=24)
_SMALL = st.integers(-40, 40).map(lambda number: b"%d" % number)
_PLACE = st.integers(0, 150).map(lambda number: b"%d" % number)
_NUMBERS = _SMALL | st.sampled_from([b"9223372036854775807", b"-9223372036854775808", b"2147483648", b"x", b"+1", b""])
_FLOAT = st.sampled_from([b"0.1", b"-0.1", b"3", b"1e3", b"1e-3", b"1e20", b"inf", b"nan", b"0x.8", b"x"]) | st.floats(
    -1e6, 1e6
).map(lambda number: repr(number).encode())
_MOMENT = st.sampled_from([b"4102444800", b"4102444801", b"4102444802000", b"0", b"-1", b"9223372036854776", b"x"])
_FIELD = st.sampled_from([b"u1", b"i1", b"u8", b"i8", b"i5", b"u13", b"i33", b"u63", b"i64", b"u64"])
_BIT = st.sampled_from([b"0", b"1"])


def _options(*names: bytes) -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.sampled_from(names), max_size=2)


def _flat(*parts: st.SearchStrategy[bytes] | st.SearchStrategy[list[bytes]] | bytes) -> st.SearchStrategy[list[bytes]]:
    strategies = [st.just(part) if isinstance(part, bytes) else part for part in parts]
    return st.tuples(*strategies).map(
        lambda found: [word for part in found for word in ([part] if isinstance(part, bytes) else part)]
    )


def _named(names: str, *parts: st.SearchStrategy[bytes] | st.SearchStrategy[list[bytes]] | bytes) -> st.SearchStrategy[list[bytes]]:
    return _flat(st.sampled_from(names.encode().split()), *parts)


_LIFETIME = _flat(st.sampled_from([b"exat", b"pxat"]), _MOMENT)
_FIELD_STEP = (
    _flat(b"get", _FIELD, _PLACE)
    | _flat(st.sampled_from([b"set", b"incrby"]), _FIELD, _PLACE, _SMALL)
    | _flat(b"overflow", st.sampled_from([b"wrap", b"sat", b"fail"]))
)

COMMAND: Final = st.one_of(
    _named("set", _KEYS, _VALUES, _options(b"nx", b"xx", b"get", b"keepttl")),
    _named("set", _KEYS, _VALUES, _LIFETIME, _options(b"nx", b"xx", b"get", b"keepttl")),
    _named("get getdel incr decr strlen persist type del bitcount pexpiretime getex", _KEYS),
    _named("getex", _KEYS, _LIFETIME),
    _named("append getset setnx", _KEYS, _VALUES),
    _named("incrby decrby getbit", _KEYS, _NUMBERS),
    _named("incrbyfloat", _KEYS, _FLOAT),
    _named("getrange bitcount", _KEYS, _NUMBERS, _NUMBERS),
    _named("bitcount", _KEYS, _NUMBERS, _NUMBERS, st.sampled_from([b"bit", b"byte", b"bad"])),
    _named("bitpos", _KEYS, _BIT, st.lists(_NUMBERS, max_size=2)),
    _named("bitpos", _KEYS, _BIT, _NUMBERS, _NUMBERS, st.sampled_from([b"bit", b"byte"])),
    _named("setrange", _KEYS, _PLACE, _VALUES),
    _named("setbit", _KEYS, _PLACE, _BIT),
    _named("bitop", st.sampled_from([b"and", b"or", b"xor", b"not"]), _KEYS, st.lists(_KEYS, min_size=1, max_size=3)),
    _named("bitfield", _KEYS, st.lists(_FIELD_STEP, max_size=4).map(lambda steps: [word for step in steps for word in step])),
    _named("lcs", _KEYS, _KEYS, _options(b"len", b"idx", b"withmatchlen")),
    _named("expireat pexpireat", _KEYS, _MOMENT, _options(b"nx", b"xx", b"gt", b"lt")),
    _named("rename renamenx", _KEYS, _KEYS),
    _named("copy", _KEYS, _KEYS, _options(b"replace")),
    _named("mget exists touch", st.lists(_KEYS, max_size=3)),
    _named("mset msetnx", st.lists(_KEYS | _VALUES, max_size=5)),
)
"""One command whose answer depends on no clock."""
