"""The longest common subsequence, bit-parallel: a row of the table is one integer (Hyyrö 2004).

The rows stand for the prefixes of the shorter text, so there are few of them and all work goes on within long integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import SYNTAX_ERROR, parse_int
from hypercache.resp.replies import array, bulk, integer, mapping
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

_CELL_BYTES: Final = 4
_CELLS_MAX_COUNT: Final = 1 << 27
"""The largest table, Redis' own at its 512 MiB; here it takes an eighth of a byte a cell."""

Match = tuple[int, int, int, int]
"""First and last index in the one text, first and last in the other."""


def _places(text: bytes, wanted: set[int]) -> dict[int, int]:
    """Return for each wanted byte where it stands in ``text``, place k as bit k."""
    # A text of binary digits is read in linear time; setting one bit after another would copy the integer each time.
    backwards = text[::-1]
    digits = bytearray(b"0" * 256)
    places = {}
    for byte in wanted:
        digits[byte] = 0x31
        places[byte] = int(backwards.translate(digits) or b"0", 2)
        digits[byte] = 0x30
    return places


def _rows(shorter: bytes, longer: bytes, places: dict[int, int]) -> list[int]:
    """Return a row a prefix of ``shorter``: bit k is 0 where the subsequence grows at ``longer[k]``."""
    row = ones = (1 << len(longer)) - 1
    rows = [row]
    for byte in shorter:
        hits = row & places[byte]
        row = ((row + hits) | (row - hits)) & ones
        rows.append(row)
    return rows


def length_of(first: bytes, second: bytes) -> int:
    """Return how long the longest common subsequence is."""
    shorter, longer = sorted((first, second), key=len)
    row = ones = (1 << len(longer)) - 1
    places = _places(longer, set(shorter))
    for byte in shorter:
        hits = row & places[byte]
        row = ((row + hits) | (row - hits)) & ones
    return len(longer) - row.bit_count()


def matched_pairs(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """Return the places of the subsequence in both texts, the last first, as Redis walks back through its table.

    Where the texts differ, Redis shortens the first if that leaves strictly more than shortening the second, else the second.
    """
    if len(first) <= len(second):
        return _walk_first(first, second)
    return _walk_second(first, second)


def _walk_first(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """Walk back where the rows are prefixes of the first text."""
    places = _places(second, set(first))
    rows = _rows(first, second, places)
    pairs = []
    i, j = len(first), len(second)
    while i and j:
        byte = first[i - 1]
        if byte != second[j - 1]:
            # Shortening the second costs nothing down to where it matches or the subsequence grows.
            stops = (places[byte] | ~rows[i]) & (1 << j) - 1
            j = stops.bit_length()
            if j and byte != second[j - 1]:
                i -= 1
            continue
        i, j = i - 1, j - 1
        pairs.append((i, j))
    return pairs


def _walk_second(first: bytes, second: bytes) -> list[tuple[int, int]]:
    """Walk back where the rows are prefixes of the second text."""
    places = _places(first, set(second))
    rows = _rows(second, first, places)
    pairs = []
    i, j = len(first), len(second)
    left = i - rows[j].bit_count()
    while left:
        byte = second[j - 1]
        if first[i - 1] != byte:
            prefix = (1 << i) - 1
            if i - (rows[j - 1] & prefix).bit_count() == left:
                j -= 1
                continue
            # Only a match with this byte makes the row longer than the one before it; the last one at or before i does.
            i = (places[byte] & prefix).bit_length()
        i, j, left = i - 1, j - 1, left - 1
        pairs.append((i, j))
    return pairs


def ranges_of(pairs: list[tuple[int, int]]) -> list[Match]:
    """Return runs of neighbouring pairs, the last first."""
    ranges: list[Match] = []
    for i, j in pairs:
        if ranges and ranges[-1][0] == i + 1 and ranges[-1][2] == j + 1:
            _, last, _, other_last = ranges[-1]
            ranges[-1] = (i, last, j, other_last)
        else:
            ranges.append((i, i, j, j))
    return ranges


@command(
    "lcs", arity=-3, flags="readonly", keys=(1, 2, 1), group="string", since="7.0.0", summary="Finds the longest common substring."
)
def lcs(session: Session, args: list[bytes]) -> bytes:
    """Answer the longest common subsequence of two values, its length, or its ranges."""
    first = session.store.get(args[1]) or b""
    second = session.store.get(args[2]) or b""
    length_only = indexes = with_lengths = False
    least = 0
    at = 3
    while at < len(args):
        option = args[at].upper()
        if option == b"IDX":
            indexes = True
        elif option == b"LEN":
            length_only = True
        elif option == b"WITHMATCHLEN":
            with_lengths = True
        elif option == b"MINMATCHLEN" and at + 1 < len(args):
            at += 1
            least = parse_int(args[at])
        else:
            raise CommandError(SYNTAX_ERROR)
        at += 1
    if indexes and length_only:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    cells = (len(first) + 1) * (len(second) + 1)
    if cells > min(_CELLS_MAX_COUNT, session.server.value_max_bytes // _CELL_BYTES):
        raise CommandError("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    if length_only:
        return integer(length_of(first, second))
    pairs = matched_pairs(first, second)
    if not indexes:
        return bulk(bytes([first[i] for i, _ in reversed(pairs)]))
    shown = []
    for start, last, other_start, other_last in ranges_of(pairs):
        if last - start + 1 < least:
            continue
        parts = [array([integer(start), integer(last)]), array([integer(other_start), integer(other_last)])]
        if with_lengths:
            parts.append(integer(last - start + 1))
        shown.append(array(parts))
    return mapping(session.resp, [(bulk(b"matches"), array(shown)), (bulk(b"len"), integer(len(pairs)))])
