"""The checker on histories that are known good, and known bad."""

from __future__ import annotations

import pytest

from hypercache.errors import UndecidedError
from hypercache.testing.histories import History, Operation, Outcome, decode_history, encode_history
from hypercache.testing.linearizability import find_violation
from hypercache.testing.registers import NOT_A_NUMBER, RegisterModel
from tests.testing.made_histories import linearizable_by_trying_all, written

GOOD = {
    "nothing": (),
    "one after the other": ("[set:1=ok] [get=1] [set:2=ok] [get=2]",),
    "no value at first": ("[get=-] [add:1=yes] [add:2=no] [delete=yes] [delete=no] [get=-]",),
    "a read beside a write may see it or not": (
        "[set:1=ok]   [set:2=ok                ]   ",
        "               [get=1]   [get=2] [get=2]  ",
    ),
    "two writes at once in either order": (
        "[set:1=ok        ]             ",
        " [set:2=ok     ]   [get=1]     ",
    ),
    "the order need not be that of the asking": (
        "[set:1=ok                     ]         ",
        "  [set:2=ok    ] [get=2]    ",
        "                                [get=1]",
    ),
    "increments at once": (
        "[incr:1=2     ] [get=3]",
        " [incr:1=1      ]",
        "  [incr:1=3     ]",
    ),
    "of two cas at once one wins": (
        "[set:1=ok] [cas:1:2=yes  ] [get=2]",
        "           [cas:1:3=no     ]      ",
    ),
    "both cas succeed, one after the other": (
        "[set:1=ok] [cas:2:3=yes     ] [get=3]",
        "            [cas:1:2=yes ]           ",
    ),
    "a swap takes the value before": (
        "[swap:1=-] [swap:2=1     ]",
        "           [swap:3=2     ] [get=3]",
    ),
    "an append after an append": (
        "[append:ab=3     ]    [get=xab]",
        " [append:x=1 ]",
    ),
    "an unknown write never happens": (
        "[set:1=ok] [set:2 ~              ",
        "                     [get=1] [get=1]",
    ),
    "an unknown write happens much later": (
        "[set:1=ok] [set:2 ~                      ",
        "                     [get=1] [set:3=ok] [get=3] [get=2]",
    ),
    "an unknown increment explains a gap": (
        "[incr:1=1] [incr:1 ~                     ",
        "                     [incr:1=2] [incr:1=4]",
    ),
    "an unknown write explains a cas that failed": (
        "[set:1=ok] [set:2 ~                      ",
        "                     [cas:1:3=no] [get=2]",
    ),
    "an unknown write that nobody reads explains a cas that failed": (
        "[set:1=ok] [set:2 ~       ",
        "                     [cas:1:3=no]",
    ),
    "an unknown write that nobody reads explains a delete": (
        "[set:2 ~                       ",
        "            [delete=yes] [get=-]",
    ),
    "a number comes back": ("[append:-=1] [append:5=2] [append:1=3] [incr:46=-5] [incr:1=-4]",),
    "an unknown cas on an unknown write": (
        "[set:1 ~                                   ",
        "        [cas:1:2 ~                         ",
        "                   [get=-] [get=2] [get=2]",
    ),
    "unknown reads say nothing": ("[get ~ [set:1=ok] [get ~ [get=1]",),
}

BAD = {
    "stale read": ("[set:1=ok] [set:2=ok] [get=1]",),
    "lost write": ("[set:1=ok] [get=-]",),
    "a value that nobody wrote": ("[set:1=ok] [get=7]",),
    "a read from the future": (
        "[get=1]               ",
        "         [set:1=ok]",
    ),
    "reads go back": (
        "[set:1=ok] [set:2=ok                ]   ",
        "               [get=2]   [get=1] ",
    ),
    "reads go back between clients": (
        "[set:1=ok] [set:2=ok                     ]   ",
        "               [get=2]                       ",
        "                         [get=1]             ",
    ),
    "two readers see two orders": (
        "[set:1=ok         ]                        ",
        "[set:2=ok         ]                        ",
        "                     [get=1]               ",
        "                             [get=2]       ",
    ),
    "both cas succeed": (
        "[set:1=ok] [cas:1:2=yes  ]",
        "           [cas:1:3=yes    ]",
    ),
    "both adds succeed": (
        "[add:1=yes  ]",
        "  [add:2=yes ]",
    ),
    "an increment is lost": (
        "[incr:1=1     ]        ",
        " [incr:1=1    ] [get=1]",
    ),
    "an increment happens twice": ("[incr:1=1] [incr:1=3]",),
    "an unknown increment happens twice": (
        "[incr:1=1] [incr:1 ~                     ",
        "                     [incr:1=2] [incr:1=5]",
    ),
    "an unknown write happens twice": (
        "[set:2 ~                                   ",
        "            [get=2] [set:1=ok] [get=1] [get=2]",
    ),
    "an unknown write happens before it is asked": (
        "             [set:2 ~",
        "[get=2]              ",
    ),
    "an unknown write is seen, then not": (
        "[set:1=ok] [set:2 ~                      ",
        "                     [get=2] [get=1]",
    ),
    "one value swapped out twice": (
        "[swap:1=-] [swap:2=1     ]",
        "           [swap:3=1     ]",
    ),
    "a deleted value comes back": ("[set:1=ok] [delete=yes] [get=1]",),
}


@pytest.mark.parametrize("lines", GOOD.values(), ids=GOOD)
def test_a_good_history_is_accepted(lines: tuple[str, ...]) -> None:
    history = written(*lines)
    assert linearizable_by_trying_all(history)
    assert find_violation(history) is None


@pytest.mark.parametrize("lines", BAD.values(), ids=BAD)
def test_a_bad_history_is_rejected(lines: tuple[str, ...]) -> None:
    history = written(*lines)
    assert not linearizable_by_trying_all(history)
    assert find_violation(history) is not None


def test_what_certainly_failed_took_no_effect() -> None:
    history = History(lambda: 0.0)
    history.failed(history.begin(1, b"k", ("set", b"1")))
    history.ok(history.begin(1, b"k", ("get",)), None)
    assert find_violation(history.operations()) is None
    history.ok(history.begin(1, b"k", ("get",)), b"1")
    assert find_violation(history.operations()) is not None


def test_what_never_ended_is_unknown() -> None:
    history = History(lambda: 0.0)
    history.begin(1, b"k", ("set", b"1"))
    history.ok(history.begin(2, b"k", ("get",)), None)
    history.ok(history.begin(2, b"k", ("get",)), b"1")
    assert [each.outcome for each in history.operations()] == [Outcome.UNKNOWN, Outcome.OK, Outcome.OK]
    assert find_violation(history.operations()) is None


def test_events_are_in_the_order_of_their_recording_where_the_clock_stands_still() -> None:
    history = History(lambda: 5.0)
    history.ok(history.begin(1, b"k", ("set", b"1")), True)
    history.ok(history.begin(2, b"k", ("get",)), None)
    assert find_violation(history.operations()) is not None


def test_keys_are_judged_apart() -> None:
    history = History(lambda: 0.0)
    for key in (b"a", b"b"):
        history.ok(history.begin(1, key, ("set", b"1")), True)
    history.ok(history.begin(1, b"a", ("get",)), b"1")
    assert find_violation(history.operations()) is None
    history.ok(history.begin(1, b"b", ("get",)), None)
    violation = find_violation(history.operations())
    assert violation is not None
    assert violation.key == b"b"


def test_another_model_can_be_given() -> None:
    history = written("[get=9] [incr:1=10]")
    assert find_violation(history) is not None
    assert find_violation(history, RegisterModel(b"9")) is None
    history = written("[set:x=ok] [get=x]")
    broken = Operation(0, b"k", ("incr", 1), Outcome.OK, NOT_A_NUMBER, 90, 91)
    assert find_violation([*history, broken]) is None
    with pytest.raises(ValueError, match="knows no 'fly'"):
        RegisterModel().apply(None, ("fly",))


def test_a_violation_names_the_answer_that_ends_the_shortest_bad_prefix() -> None:
    history = written(
        "[set:1=ok] [set:2=ok                     ]            [get=1] [get=5]",
        "               [get=2]                       ",
        "                         [get=1]             ",
        "              [set:9 ~",
    )
    violation = find_violation(history)
    assert violation is not None
    assert violation.blocked.call == ("get",)
    assert (violation.blocked.client, violation.blocked.result) == (2, b"1")
    others = [each for each in history if each.start < violation.blocked.end and each is not violation.blocked]
    assert [each.call for each in violation.ordered] == [("set", b"1"), ("set", b"2"), ("get",)]
    assert violation.states == (b"2",)
    assert [each.call for each in violation.waiting] == [("set", b"9")]
    assert violation.length == 5
    assert find_violation(others) is None
    assert find_violation([*others, violation.blocked]) is not None
    told = str(violation)
    for words in (
        "client 2: get() -> b'1'",
        "the key held meanwhile: b'2'",
        "client 3: set(b'9') unknown",
        "client 0: set(b'1') -> True",
    ):
        assert words in told


def test_a_search_that_takes_too_long_says_that_it_does_not_know() -> None:
    history = written(*["[set:1=ok] [get=1] [set:2=ok] [get=2]"])
    with pytest.raises(UndecidedError, match="4 operations on b'k' are not ordered in 3 steps"):
        find_violation(history, steps_max=3)


def test_a_history_is_kept_and_read_back() -> None:
    history = History(iter(range(100)).__next__)
    history.ok(history.begin(1, b"k", ("set", b"\xff")), True)
    history.failed(history.begin(1, b"k", ("get",)))
    history.ok(history.begin(1, b"k", ("incr", 3)), 3)
    history.begin(2, "k", ("cas", b"1", b"2"))
    assert decode_history(encode_history(history.operations())) == history.operations()
