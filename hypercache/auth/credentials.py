"""The keys that nodes authenticate with: one credential, all that a node holds, and their text.

Their text is a line of JSON each, so that a file of keys can be read, edited and appended to by hand::

    {"id": "2027-01", "node": 0, "from": "2027-01-01T00:00:00Z", "to": "2028-01-01T00:00:00Z", "key": "c2l4dGVlbiB0aW1lcyB0d28…"}

``node`` may be left out, which is 0: any member. Empty lines and those that begin with ``#`` count for nothing.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from hypercache.errors import ConfigurationError
from hypercache.limits import CREDENTIALS_MAX_COUNT
from hypercache.wire.signing import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANY_NODE: Final = 0
_NODE_ID_MAX: Final = (1 << 64) - 1
_KEY_ID_MAX_BYTES: Final = 255
_LATEST_SECONDS: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


class NodeCredential(msgspec.Struct, frozen=True, gc=False):
    """A key, whose it is, and when it is valid.

    Attributes:
        key_id: its name; it travels in Hello, and is no secret.
        node_id: the node that proves its id with it; `ANY_NODE` for a key that all members share.
        key: 32 bytes.
        valid_from: Unix seconds.
        valid_to: Unix seconds; the first at which it is not valid any more.

    Raises:
        ConfigurationError: one of these is out of range.
    """

    key_id: str
    node_id: int
    key: bytes
    valid_from: float
    valid_to: float

    def __post_init__(self) -> None:
        if not 0 < len(self.key_id.encode()) <= _KEY_ID_MAX_BYTES or not self.key_id.isprintable():
            raise ConfigurationError(f"the id of a key must have 1 to {_KEY_ID_MAX_BYTES} bytes that can be printed")
        if not 0 <= self.node_id <= _NODE_ID_MAX:
            raise ConfigurationError(f"key {self.key_id!r}: the node must be a node's id, or 0 for any member")
        if len(self.key) != KEY_BYTES:
            raise ConfigurationError(f"key {self.key_id!r}: the key must have {KEY_BYTES} bytes, not {len(self.key)}")
        if not 0 <= self.valid_from < self.valid_to <= _LATEST_SECONDS:
            raise ConfigurationError(f"key {self.key_id!r}: it must end after it begins, both between the years 1970 and 9999")

    def __repr__(self) -> str:
        return f"NodeCredential({self.key_id!r}, node_id={self.node_id}, {instant(self.valid_from)} to {instant(self.valid_to)})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # What msgspec makes for rich and its tracebacks would show the key.
        return [("key_id", self.key_id), ("node_id", self.node_id)]

    def valid(self, now: float, skew: float = 0.0) -> bool:
        """Say whether the key is valid.

        Args:
            now: Unix seconds.
            skew: seconds that are allowed at both ends; negative: seconds that must be kept from them.
        """
        return self.valid_from - skew <= now < self.valid_to + skew


class Keyring:
    """The keys that a node holds.

    Args:
        credentials: in any order; no two of one id.

    Raises:
        ConfigurationError: two have one id.
    """

    __slots__ = ("_by_id", "_by_node")

    def __init__(self, credentials: Iterable[NodeCredential]) -> None:
        self._by_id: dict[str, NodeCredential] = {}
        self._by_node: dict[int, list[NodeCredential]] = {}
        for each in credentials:
            if each.key_id in self._by_id:
                raise ConfigurationError(f"two keys have the id {each.key_id!r}")
            self._by_id[each.key_id] = each
            self._by_node.setdefault(each.node_id, []).append(each)
        for keys in self._by_node.values():
            keys.sort(key=lambda each: (each.valid_from, each.key_id), reverse=True)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[NodeCredential]:
        return iter(self._by_id.values())

    def find(self, key_id: str) -> NodeCredential | None:
        """Return the key of an id, None where there is none."""
        return self._by_id.get(key_id)

    def of_node(self, node_id: int) -> tuple[NodeCredential, ...]:
        """Return the keys that are bound to a node, or with `ANY_NODE` those that all members share, the newest first."""
        return tuple(self._by_node.get(node_id, ()))

    def bound(self, node_id: int, now: float, skew: float) -> bool:
        """Say whether a node has a key of its own that is valid by any clock that is wrong by no more than the skew, in seconds."""
        return any(each.valid(now, -skew) for each in self._by_node.get(node_id, ()))

    def choose(self, node_id: int, now: float, skew: float) -> NodeCredential | None:
        """Return the key that a node should use, None where it has none.

        A key of its own comes before a shared one, and the newest first. What peers allow for differing clocks is theirs: a key
        that only the allowance makes valid is the last choice.

        Args:
            node_id: the node.
            now: Unix seconds.
            skew: seconds that are allowed at both ends.
        """
        candidates = (*self.of_node(node_id), *self.of_node(ANY_NODE))
        for allowed in (0.0, skew):
            for each in candidates:
                if each.valid(now, allowed):
                    return each
        return None


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a line holds; its texts are converted, its values not judged."""

    id: str
    key: bytes
    valid_from: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="from")
    valid_to: Annotated[datetime, msgspec.Meta(tz=True)] = msgspec.field(name="to")
    node: int = ANY_NODE


def parse_keys(data: bytes, source: str) -> Keyring:
    """Return the keys that a text holds.

    Args:
        data: the text.
        source: what errors call it, such as the file's path.

    Raises:
        ConfigurationError: a line is none of a key, an id is there twice, or there are too many; the text names source and line,
            and says what to do.
    """
    decode = msgspec.json.Decoder(_Line).decode
    lines: dict[str, int] = {}
    credentials: list[NodeCredential] = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        if len(credentials) == CREDENTIALS_MAX_COUNT:
            raise ConfigurationError(
                f"{source} has more than {CREDENTIALS_MAX_COUNT} keys; take out those that are not valid any more"
            )
        try:
            given = decode(text)
            each = NodeCredential(given.id, given.node, given.key, given.valid_from.timestamp(), given.valid_to.timestamp())
        except (msgspec.DecodeError, ConfigurationError) as error:
            raise ConfigurationError(f"{source}, line {number}: {error}; {_FORM}") from None
        first = lines.setdefault(each.key_id, number)
        if first != number:
            raise ConfigurationError(
                f"{source}, line {number}: the key of line {first} has the id {each.key_id!r} too; give one another"
            )
        credentials.append(each)
    return Keyring(credentials)


_FORM: Final = (
    'write {"id": NAME, "node": ID or 0, "from": DATE, "to": DATE, "key": 32 bytes in base64}, dates such as 2027-01-01T00:00:00Z, '
    "or let hypercache keygen do it"
)


def key_line(credential: NodeCredential) -> bytes:
    """Return the line, and its end, that `parse_keys` reads a key from; fractions of seconds are lost."""
    values = {
        "id": credential.key_id,
        "node": credential.node_id,
        "from": instant(credential.valid_from),
        "to": instant(credential.valid_to),
        "key": base64.b64encode(credential.key).decode(),
    }
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def instant(seconds: float) -> str:
    """Return a time as RFC 3339 has it, in whole seconds.

    Args:
        seconds: Unix time.
    """
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
