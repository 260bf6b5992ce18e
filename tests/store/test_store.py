"""A named store: what is put, read, changed and deleted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hypercache.store import STAMP_STEP
from tests.store.stores import NOW, after, make, never, stamp_of

ACTIONS = [
    "put",
    "ttl",
    "replace",
    "del",
    "get",
    "touch",
    "exp",
    "persist",
    "adv",
    "back",
    "flush",
    "mark",
    "sweep",
    "tend",
    "scan",
]


def test_what_is_put_is_got_until_it_is_deleted() -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.get(b"k") == b"v"
    assert len(store) == 1
    assert store.delete(b"k")
    assert not store.delete(b"k")
    assert store.get(b"k") is None
    assert (store.hits, store.misses) == (1, 1)


def test_put_clears_the_deadline_and_replace_keeps_it() -> None:
    store = make()
    store.put(b"k", b"v", NOW + 100)
    store.replace(b"k", b"w")
    assert store.deadline(b"k") == NOW + 100
    store.put(b"k", b"x")
    assert store.deadline(b"k") == 0
    assert store.deadline(b"none") is None
    assert store.volatile == 0


def test_a_deadline_is_set_and_removed() -> None:
    store = make()
    store.put(b"k", b"v")
    assert store.set_deadline(b"k", NOW + 5)
    assert (store.deadline(b"k"), store.volatile) == (NOW + 5, 1)
    assert store.set_deadline(b"k", 0)
    assert (store.deadline(b"k"), store.volatile) == (0, 0)
    assert not store.set_deadline(b"none", NOW + 5)


def test_peek_is_no_access_and_get_and_touch_are() -> None:
    store = make()
    store.put(b"k", b"v")
    store.advance(NOW + 10_000)
    assert store.peek(b"k") == b"v"
    assert store.idle_seconds(b"k") == 9
    assert store.touch(b"k")
    assert store.idle_seconds(b"k") == 0
    store.advance(NOW + 20_000)
    store.get(b"k")
    assert store.idle_seconds(b"k") == 0
    assert store.idle_seconds(b"none") is None
    assert not store.touch(b"none")
    assert (store.hits, store.misses) == (1, 0)


def test_an_empty_key_and_an_empty_value_are_like_any_other() -> None:
    store = make()
    store.put(b"", b"")
    assert (store.get(b""), list(store.keys()), store.random_key()) == (b"", [b""], b"")
    assert store.contains(b"")
    assert store.delete(b"")
    assert len(store) == 0


def test_a_value_of_64_mib_is_held_and_counted_and_let_go() -> None:
    store = make()
    empty = store.used_bytes()
    store.put(b"k", bytes(64 << 20))
    assert len(store.get(b"k") or b"") == 64 << 20
    assert 64 << 20 < store.used_bytes() - empty < (64 << 20) + 10_000
    assert (store.memory_of(b"k") or 0) > 64 << 20
    store.put(b"k", b"small")
    assert store.used_bytes() - empty < 2_000
    store.delete(b"k")
    assert store.used_bytes() == empty


def test_one_key_written_many_times_takes_no_more_than_once() -> None:
    store = make(replicating=True)
    store.put(b"k", b"v" * 50, NOW + 10)
    once = store.used_bytes()
    for number in range(10_000):
        store.put(b"k", b"v" * (number % 200), NOW + number + 1)
    store.put(b"k", b"v" * 50, NOW + 10)
    assert store.used_bytes() == once
    assert (len(store), store.volatile, store.dirty) == (1, 1, {b"k": 0})


def test_deadlines_at_the_ends_of_the_scale() -> None:
    store = make()
    store.put(b"past", b"v", 1)
    store.put(b"before time", b"v", -(1 << 62))
    store.put(b"far", b"v", (1 << 63) - 1)
    assert list(store.keys()) == [b"far"]
    assert store.scan(0, 10) == (0, [b"far"])
    assert store.get(b"past") is None
    assert store.get(b"before time") is None
    assert store.get(b"far") == b"v"
    store.tend(never)
    assert (len(store), store.volatile) == (1, 1)
    store.put(b"k", b"v")
    assert store.set_deadline(b"k", -1)
    assert not store.contains(b"k")


def test_a_clock_that_goes_back_keeps_what_is_in_use_in_use() -> None:
    store = make("lru")
    store.put(b"k", b"v")
    store.advance(NOW - 3_600_000)
    assert store.idle_seconds(b"k") == 0
    store.advance(NOW + 60_000)
    assert 59 <= (store.idle_seconds(b"k") or 0) <= 60


def test_every_stamp_exceeds_all_before_it_even_when_the_clock_goes_back() -> None:
    store = make(replicating=True)
    stamps = []
    for now in (NOW, NOW + 5, NOW - 10_000, NOW + 5):
        store.advance(now)
        store.put(b"k", b"v")
        stamps.append(stamp_of(store, b"k"))
    store.observe(stamps[-1] + 1000 * STAMP_STEP)
    store.put(b"k", b"v")
    stamps.append(stamp_of(store, b"k"))
    assert stamps == sorted(set(stamps))
    assert stamps[-1] & (STAMP_STEP - 1) == 7


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 40)), max_size=80))
def test_a_store_behaves_as_a_dictionary_with_deadlines(steps: list[tuple[str, int, int]]) -> None:
    store = make(replicating=True)
    model: dict[bytes, tuple[bytes, int]] = {}
    stamps: dict[bytes, int] = {}
    now = NOW
    mark = 0
    empty = store.used_bytes()
    for action, number, amount in steps:
        key, value = b"k%d" % number, b"v" * amount
        model = {k: v for k, v in model.items() if not v[1] or v[1] > now}
        if action in ("put", "ttl", "replace"):
            deadline = now + amount + 1 if action == "ttl" else 0
            if action == "replace":
                store.replace(key, value)
                deadline = model[key][1] if key in model else 0
            else:
                store.put(key, value, deadline)
            model[key] = (value, deadline)
            stamps[key] = stamp_of(store, key)
        elif action == "del":
            assert store.delete(key) == (model.pop(key, None) is not None)
        elif action in ("exp", "persist"):
            deadline = now + amount if action == "exp" else 0
            assert store.set_deadline(key, deadline) == (key in model)
            if key in model:
                model[key] = (model[key][0], deadline)
                if deadline == now:
                    del model[key]
                else:
                    stamps[key] = stamp_of(store, key)
        elif action in ("adv", "back"):
            # Lazy expiry: what has not been looked at comes back with the clock, so look.
            assert {k for k in model if store.contains(k)} == set(model)
            store.tend(never)
            now += amount if action == "adv" else -amount
            store.advance(now)
        elif action == "flush":
            store.flush()
            model.clear()
        elif action == "mark":
            mark = store.next_stamp()
        elif action == "sweep":
            store.apply_flush(mark)
            model = {k: v for k, v in model.items() if stamps[k] > mark}
        elif action == "tend":
            store.tend(after(amount + 1))
        elif action == "scan":
            assert set(store.scan(0, 1 << 40)[1]) == set(model)
        elif action == "touch":
            assert store.touch(key) == (key in model)
        else:
            assert store.get(key) == model.get(key, (None,))[0]
            assert store.deadline(key) == model.get(key, (None, None))[1]
    model = {k: v for k, v in model.items() if not v[1] or v[1] > now}
    assert set(store.keys()) == set(model)
    store.tend(never)
    assert len(store) == len(model)
    assert store.volatile == sum(1 for _, deadline in model.values() if deadline)
    for key in model:
        store.delete(key)
    store.flush()
    store.advance(now + 10**9)
    store.tend(never)
    assert store.used_bytes() == empty
