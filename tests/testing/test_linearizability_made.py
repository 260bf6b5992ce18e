"""The checker on histories that chance made: a register's own are accepted, changed ones judged as by trying all orders."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.testing.histories import NEVER, Operation, Outcome
from hypercache.testing.linearizability import find_violation
from tests.testing.made_histories import CALLS, changed, linearizable_by_trying_all, made

if TYPE_CHECKING:
    from hypercache.testing.histories import Call

RESULTS = (None, True, False, 1, 2, 3, b"1", b"2", b"3", b"4", b"5")


@pytest.mark.parametrize("seed", range(60))
def test_what_a_register_did_is_accepted(seed: int) -> None:
    rng = random.Random(seed)
    operations = made(rng, count=300, clients=rng.choice((1, 2, 5, 10)), unknown=rng.choice((0.0, 0.02, 0.2)))
    assert find_violation(operations) is None


@pytest.mark.parametrize("seed", range(60))
def test_a_value_that_nobody_wrote_or_that_was_overwritten_before_the_read_is_rejected(seed: int) -> None:
    rng = random.Random(seed)
    operations = made(rng, count=300, clients=4, unknown=0.02, calls=[("get",), ("set", b"")], unique=True)
    reads = [at for at, each in enumerate(operations) if each.call == ("get",) and each.outcome is Outcome.OK]
    assert find_violation(changed(operations, rng.choice(reads), b"nobody's")) is not None
    # A write before the read asks whose value was overwritten by a write that began after it ended and ended before the read began.
    late = operations[reads[-1]]
    writes = [each for each in operations if each.call[0] == "set" and each.end < late.start]
    stale = next(first for first in writes if any(first.end < other.start for other in writes))
    assert find_violation(changed(operations, reads[-1], stale.call[1])) is not None


@st.composite
def small_histories(draw: st.DrawFn) -> list[Operation]:
    """Up to six operations anywhere, with any answers."""
    count = draw(st.integers(1, 6))
    places = draw(st.permutations(range(2 * count)))
    operations = []
    for number in range(count):
        start, end = sorted(places[2 * number : 2 * number + 2])
        call = draw(st.sampled_from(CALLS))
        outcome = draw(st.sampled_from((Outcome.OK, Outcome.OK, Outcome.OK, Outcome.UNKNOWN)))
        answer = draw(st.sampled_from(RESULTS)) if outcome is Outcome.OK else None
        end = end if outcome is Outcome.OK else NEVER
        operations.append(Operation(number, b"k", call, outcome, answer, start, end))
    return operations


@settings(max_examples=300, deadline=None)
@given(small_histories())
def test_any_small_history_is_judged_as_by_trying_all_orders(operations: list[Operation]) -> None:
    assert (find_violation(operations) is None) == linearizable_by_trying_all(operations)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 5), st.sampled_from(RESULTS))
def test_a_changed_answer_is_judged_as_by_trying_all_orders(seed: int, at: int, result: object) -> None:
    operations = made(random.Random(seed), count=6, clients=4, unknown=0.15)
    if operations[at].outcome is Outcome.OK:
        operations = changed(operations, at, result)
    assert (find_violation(operations) is None) == linearizable_by_trying_all(operations)


def shortest_bad_prefix(operations: list[Operation]) -> int:
    """Return the answer's place at which a history stops being linearizable."""
    ends = sorted(each.end for each in operations if each.outcome is Outcome.OK)
    return next((end for end in ends if not linearizable_by_trying_all(operations, end)), NEVER)


@settings(max_examples=200, deadline=None)
@given(small_histories())
def test_a_violation_ends_the_shortest_bad_prefix(operations: list[Operation]) -> None:
    violation = find_violation(operations)
    assert (NEVER if violation is None else violation.blocked.end) == shortest_bad_prefix(operations)


WORKLOADS = {
    "register": [("get",), ("get",), ("set", b""), ("set", b""), ("swap", b"")],
    "counter": [("get",), ("incr", 1), ("incr", 1)],
    "log": [("get",), ("append", b"1234"), ("append", b"5678")],
    "lock": [("get",), ("add", b""), ("add", b""), ("delete",)],
}


@pytest.mark.parametrize("calls", WORKLOADS.values(), ids=WORKLOADS)
def test_thousands_of_operations_on_a_key_take_seconds(calls: list[Call]) -> None:
    operations = made(random.Random(1), count=5000, clients=8, unknown=0.003, calls=calls, unique=True)
    reads = [at for at, each in enumerate(operations) if each.call == ("get",) and each.outcome is Outcome.OK]
    began = time.process_time()
    assert find_violation(operations) is None
    assert find_violation(changed(operations, reads[-100], b"nobody's")) is not None
    assert time.process_time() - began < 20


def test_many_cas_of_few_values_are_decided() -> None:
    calls = [("get",), ("get",), ("set", b"1"), ("set", b"2"), ("cas", b"1", b"2"), ("cas", b"2", b"3")]
    operations = made(random.Random(1), count=1000, clients=5, unknown=0.003, calls=calls)
    reads = [at for at, each in enumerate(operations) if each.call == ("get",) and each.outcome is Outcome.OK]
    assert find_violation(operations) is None
    assert find_violation(changed(operations, reads[-100], b"nobody's")) is not None
