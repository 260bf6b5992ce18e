"""Whatever happens in whatever order, nodes that are linked in the end hold the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.replication.pipes import Pipe, PureNode, settle

KEYS = st.sampled_from([b"a", b"b", b"c"])


def steps(nodes: int) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    node = st.integers(0, nodes - 1)
    pipe = st.integers(0, nodes * (nodes - 1) - 1)
    return st.lists(
        st.one_of(
            st.tuples(st.just("put"), node, KEYS, st.integers(0, 99)),
            st.tuples(st.just("put for a while"), node, KEYS, st.integers(5_000, 9_000)),
            st.tuples(st.just("delete"), node, KEYS),
            st.tuples(st.just("expire"), node, KEYS, st.integers(5_000, 9_000)),
            st.tuples(st.just("persist"), node, KEYS),
            st.tuples(st.just("flush"), node),
            st.tuples(st.just("wait"), node),
            *[st.tuples(st.just(what), pipe) for what in ("produce", "apply", "apply", "answer", "answer", "lose")],
        ),
        max_size=60,
    )


def do(step: tuple[Any, ...], nodes: list[PureNode], pipes: list[Pipe]) -> None:
    what, number, *arguments = step
    if what in ("produce", "apply", "answer", "lose"):
        getattr(pipes[number], what)()
        if what == "lose":
            # Both directions of a link break together.
            for pipe in pipes:
                if pipe.source is pipes[number].target and pipe.target is pipes[number].source:
                    pipe.lose()
        return
    node = nodes[number]
    store = node.store()
    if what == "put":
        store.put(arguments[0], b"%d" % arguments[1])
    elif what == "put for a while":
        store.put(arguments[0], b"mortal", store.now_ms + arguments[1])
    elif what == "delete":
        store.delete(arguments[0])
    elif what == "expire":
        store.set_deadline(arguments[0], store.now_ms + arguments[1])
    elif what == "persist":
        store.set_deadline(arguments[0], 0)
    elif what == "flush":
        store.flush()
    else:
        node.now_ms += 1


def converge(script: list[tuple[Any, ...]], count: int, *, outbox: int) -> list[PureNode]:
    nodes = [PureNode(origin, outbox=outbox) for origin in range(1, count + 1)]
    pipes = [Pipe(one, other) for one in nodes for other in nodes if one is not other]
    for pipe in pipes:
        pipe.source.link(pipe.target.origin)
    for step in script:
        do(step, nodes, pipes)
    settle(pipes)
    first, *others = (node.contents() for node in nodes)
    for contents in others:
        assert contents == first
    return nodes


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(2))
def test_two_nodes_converge_after_any_operations_and_any_lost_links(script: list[tuple[Any, ...]]) -> None:
    converge(script, 2, outbox=1000)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(3))
def test_three_nodes_converge_though_each_hears_of_a_key_over_two_links(script: list[tuple[Any, ...]]) -> None:
    converge(script, 3, outbox=1000)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(2))
def test_nodes_converge_though_an_outbox_of_two_keys_overflows(script: list[tuple[Any, ...]]) -> None:
    converge(script, 2, outbox=2)


@pytest.mark.parametrize("first", [0, 1])
def test_a_concurrent_expire_and_set_end_alike_on_both(first: int) -> None:
    nodes = converge([("put", 0, b"a", 1)], 2, outbox=1000)
    pipes = [Pipe(nodes[0], nodes[1]), Pipe(nodes[1], nodes[0])]
    nodes[first].now_ms += 5
    nodes[0].store().set_deadline(b"a", nodes[0].now_ms + 9_000)
    nodes[1].store().put(b"a", b"new")
    settle(pipes)
    assert nodes[0].contents() == nodes[1].contents()


def test_an_expire_that_waits_while_a_later_value_arrives_does_not_pass_for_that_value() -> None:
    """The first node's change of deadline follows a value that another node has replaced meanwhile."""
    converge(
        [
            ("put", 0, b"a", 1),
            *[(what, number) for _ in range(3) for number in range(6) for what in ("produce", "apply", "answer")],
            ("expire", 0, b"a", 5_000),
            ("wait", 1),
            ("put", 1, b"a", 2),
            *[(what, number) for number in (2, 3) for what in ("produce", "apply")],
            ("expire", 0, b"a", 6_000),
            *[(what, number) for number in (0, 1) for what in ("produce", "apply", "answer")],
        ],
        3,
        outbox=1000,
    )


def test_a_key_that_was_deleted_while_the_link_was_down_does_not_come_back() -> None:
    nodes = converge([("put", 0, b"a", 1)], 2, outbox=1000)
    nodes[0].store().delete(b"a")
    pipes = [Pipe(nodes[0], nodes[1]), Pipe(nodes[1], nodes[0])]
    for pipe in pipes:
        pipe.lose()
    settle(pipes)
    assert nodes[0].contents() == nodes[1].contents() == {}
