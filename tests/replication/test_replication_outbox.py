from __future__ import annotations

from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from hypercache.replication.outbox import Change, Outbox, merged

WHOLE = Change(0, 100, 0)


def drain(outbox: Outbox) -> list[tuple[str, bytes, Change]]:
    return list(iter(outbox.pop, None))


def test_keys_come_out_once_and_in_the_order_in_which_they_changed() -> None:
    outbox = Outbox(10)
    outbox.add("a", {b"1": WHOLE, b"2": WHOLE})
    outbox.add("a", {b"3": WHOLE, b"1": WHOLE})
    assert len(outbox) == 3
    assert [key for _, key, _ in drain(outbox)] == [b"1", b"2", b"3"]
    assert len(outbox) == 0
    assert not outbox


def test_a_key_that_changes_again_while_its_generation_is_taken_still_comes_out_once() -> None:
    outbox = Outbox(10)
    outbox.add("a", {b"1": WHOLE, b"2": WHOLE})
    assert outbox.pop() == ("a", b"1", WHOLE)
    later = Change(0, 200, 0)
    outbox.add("a", {b"2": later, b"1": later})
    assert drain(outbox) == [("a", b"2", later), ("a", b"1", later)]
    assert len(outbox) == 0


def test_no_store_is_starved_by_one_that_is_written_all_the_time() -> None:
    outbox = Outbox(100)
    outbox.add("busy", {b"0": WHOLE})
    outbox.add("quiet", {b"k": WHOLE})
    stores = []
    for number in range(4):
        outbox.add("busy", {b"%d" % number: WHOLE})
        taken = outbox.pop()
        assert taken is not None
        stores.append(taken[0])
    assert "quiet" in stores


def test_one_key_too_many_empties_it_and_says_so() -> None:
    outbox = Outbox(3)
    assert outbox.add("a", {b"1": WHOLE, b"2": WHOLE, b"3": WHOLE})
    outbox.pop()
    assert outbox.add("a", {b"4": WHOLE})
    assert not outbox.add("b", {b"5": WHOLE})
    assert (len(outbox), outbox.overflows, outbox.pop()) == (0, 1, None)


def test_a_flushed_store_is_forgotten_in_the_midst_of_being_taken() -> None:
    outbox = Outbox(10)
    outbox.add("a", {b"1": WHOLE, b"2": WHOLE})
    outbox.add("b", {b"1": WHOLE})
    outbox.pop()
    outbox.add("a", {b"3": WHOLE})
    outbox.forget_store("a")
    assert len(outbox) == 1
    assert drain(outbox) == [("b", b"1", WHOLE)]


def test_changes_of_a_deadline_are_one_only_where_each_follows_the_other() -> None:
    assert merged(Change(10, 20, 0), Change(20, 30, 0)) == Change(10, 30, 0)
    # A value with the stamp 25 came in between, from elsewhere: the peer may not have it.
    assert merged(Change(10, 20, 0), Change(25, 30, 0)) == Change(0, 30, 0)
    assert merged(Change(0, 20, 0), Change(20, 30, 0)) == Change(0, 30, 0)
    assert merged(Change(10, 20, 0), Change(0, 30, 0)) == Change(0, 30, 0)


def test_taking_a_large_outbox_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        outbox = Outbox(count)
        outbox.add("a", {b"%d" % number: WHOLE for number in range(count)})
        start = perf_counter()
        drain(outbox)
        return perf_counter() - start

    assert min(seconds(64_000) for _ in range(3)) < 64 * max(min(seconds(4_000) for _ in range(3)), 1e-4)


names = st.sampled_from(["a", "b"])
keys = st.sampled_from([b"1", b"2", b"3", b"4"])


@given(st.lists(st.one_of(st.tuples(names, st.dictionaries(keys, st.just(WHOLE))), st.none(), names)))
def test_it_holds_what_was_added_and_not_yet_taken(steps: list[tuple[str, dict[bytes, Change]] | str | None]) -> None:
    outbox = Outbox(100)
    expected: set[tuple[str, bytes]] = set()
    for step in steps:
        if step is None:
            taken = outbox.pop()
            assert (taken is None) == (not expected)
            if taken is not None:
                expected.remove(taken[:2])
        elif isinstance(step, str):
            outbox.forget_store(step)
            expected = {each for each in expected if each[0] != step}
        else:
            outbox.add(*step)
            expected |= {(step[0], key) for key in step[1]}
        # A key may be counted twice while its generation is taken: the bound errs on the safe side.
        assert len(expected) <= len(outbox) <= 2 * len(expected)
    assert {taken[:2] for taken in drain(outbox)} == expected
    assert len(outbox) == 0
