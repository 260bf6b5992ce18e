"""The longest common subsequence, bit-parallel: a row of the table is one integer (Hyyrö 2004)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.arguments import SYNTAX_ERROR, parse_int
from hypercache.resp.replies import array, bulk, integer, mapping
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.session import Session

CELLS_MAX_COUNT: Final = 1 << 27
"""The largest table; it takes an eighth of that in bytes, and about 50 ms."""

Match = tuple[int, int, int, int]
"""First and last index in the one text, first and last in the other."""


def rows_of(first: bytes, second: bytes) -> list[int]:
    """Return a row a prefix of ``first``: bit j is 0 where the subsequence grows at ``second[j]``."""
    ones = (1 << len(second)) - 1
    places: dict[int, int] = {}
    for at, byte in enumerate(second):
        places[byte] = places.get(byte, 0) | 1 << at
    row = ones
    rows = [row]
    for byte in first:
        hits = row & places.get(byte, 0)
        row = ((row + hits) | (row - hits)) & ones
        rows.append(row)
    return rows


def matches_of(first: bytes, second: bytes) -> tuple[bytes, list[Match]]:
    """Return the subsequence and the ranges that it consists of, the last first, as Redis walks back through its table."""
    rows = rows_of(first, second)
    i, j = len(first), len(second)
    found = bytearray()
    matches: list[Match] = []
    while i and j:
        if first[i - 1] == second[j - 1]:
            i, j = i - 1, j - 1
            found.append(first[i])
            if matches and matches[-1][0] == i + 1 and matches[-1][2] == j + 1:
                _, last, _, other_last = matches[-1]
                matches[-1] = (i, last, j, other_last)
            else:
                matches.append((i, i, j, j))
        else:
            # length(i, j) = j less the ones among the first j bits of row i
            prefix = (1 << j) - 1
            above = j - (rows[i - 1] & prefix).bit_count()
            left = j - 1 - (rows[i] & prefix >> 1).bit_count()
            if above > left:
                i -= 1
            else:
                j -= 1
    found.reverse()
    return bytes(found), matches


@command(
    "lcs", arity=-3, flags="readonly", keys=(1, 2, 1), group="string", since="7.0.0", summary="Finds the longest common substring."
)
def lcs(session: Session, args: list[bytes]) -> bytes:
    """Answer the longest common subsequence of two values, its length, or its ranges."""
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
            least = max(0, parse_int(args[at]))
        else:
            raise CommandError(SYNTAX_ERROR)
        at += 1
    if indexes and length_only:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    first = session.store.get(args[1]) or b""
    second = session.store.get(args[2]) or b""
    if len(first) * len(second) > CELLS_MAX_COUNT:
        raise CommandError("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")
    if length_only:
        return integer(len(second) - rows_of(first, second)[-1].bit_count())
    found, matches = matches_of(first, second)
    if not indexes:
        return bulk(found)
    shown = []
    for start, last, other_start, other_last in matches:
        if last - start + 1 < least:
            continue
        parts = [array([integer(start), integer(last)]), array([integer(other_start), integer(other_last)])]
        if with_lengths:
            parts.append(integer(last - start + 1))
        shown.append(array(parts))
    return mapping(session.resp, [(bulk(b"matches"), array(shown)), (bulk(b"len"), integer(len(found)))])
