from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from hypercache.persist.terms import Terms
from tests.persist.kept import entry

if TYPE_CHECKING:
    from hypercache.wire.messages import LogEntry


def of(*terms: int) -> list[LogEntry]:
    return [entry(term, b"") for term in terms]


@given(
    st.integers(0, 20), st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 2), min_size=1, max_size=6)), max_size=12)
)
def test_it_says_what_a_list_would(base: int, changes: list[tuple[int, list[int]]]) -> None:
    terms, plain = Terms(base, 1), [1]
    for back, steps in changes:
        keep = max(len(plain) - back, 1)
        plain = plain[:keep]
        added: list[int] = []
        for step in steps:
            added.append((added or plain)[-1] + step)
        terms.replace(base + keep, of(*added))
        plain += added
        assert terms.last == base + len(plain) - 1
        assert terms.last_term == plain[-1]
        assert [terms.at(base + place) for place in range(len(plain))] == plain
        assert terms.at(base - 1) == terms.at(terms.last + 1) == -1


def test_what_is_forgotten_is_not_known() -> None:
    terms = Terms(0, 0)
    terms.replace(1, of(1, 1, 2, 2, 3))
    terms.forget(4)
    assert [terms.at(index) for index in range(7)] == [-1, -1, -1, -1, 2, 3, -1]
    assert terms.first == 4


def test_a_copy_changes_by_itself() -> None:
    terms = Terms(0, 0)
    other = terms.copy()
    other.replace(1, of(1))
    assert (terms.last, other.last) == (0, 1)
