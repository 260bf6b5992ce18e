"""Two nodes: what is written on either is on the other, whatever happens to the link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from hypercache.wire.messages import StreamReset

if TYPE_CHECKING:
    from tests.cluster.network import Network, Node


@pytest.fixture
def pair(net: Network) -> tuple[Node, Node]:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: one.linked() and two.linked())
    net.run(0.2)
    return one, two


def level(net: Network, *nodes: Node, seconds: float = 10.0) -> None:
    def same() -> bool:
        return all(node.is_level() for node in nodes) and len({tuple(sorted(node.contents().items())) for node in nodes}) == 1

    net.until(same, seconds)


@pytest.mark.parametrize("writer", [0, 1])
def test_a_key_set_on_either_node_is_on_the_other(net: Network, pair: tuple[Node, Node], writer: int) -> None:
    source, target = pair[writer], pair[1 - writer]
    source.store().put(b"k", b"v")
    net.run(0.05)
    assert target.store().get(b"k") == b"v"
    assert target.store().record(b"k") == source.store().record(b"k")


@pytest.mark.parametrize("writer", [0, 1])
def test_deadline_persist_delete_and_flush_travel_both_ways(net: Network, pair: tuple[Node, Node], writer: int) -> None:
    source, target = pair[writer], pair[1 - writer]
    store = source.store()
    deadline = store.now_ms + 60_000
    store.put(b"born mortal", b"v", deadline)
    store.put(b"made mortal", b"v")
    store.put(b"gone", b"v")
    net.run(0.05)
    assert target.store().deadline(b"born mortal") == deadline
    source.store().set_deadline(b"made mortal", deadline)
    source.store().set_deadline(b"born mortal", 0)
    source.store().delete(b"gone")
    net.run(0.05)
    assert target.contents() == {b"made mortal": (b"v", deadline), b"born mortal": (b"v", 0)}
    source.store().flush()
    source.store().put(b"after", b"v")
    net.run(0.05)
    assert target.contents() == {b"after": (b"v", 0)} == source.contents()


def test_a_store_with_another_name_is_made_at_the_peer(net: Network, pair: tuple[Node, Node]) -> None:
    pair[0].store("db3").put(b"k", b"v")
    net.run(0.05)
    assert pair[1].contents("db3") == {b"k": (b"v", 0)}
    assert pair[1].contents() == {}


def test_what_a_peer_sent_is_not_sent_back(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    sent = two.metrics.meter(0x20).sent
    for number in range(100):
        one.store().put(b"%d" % number, b"v")
    level(net, one, two)
    assert two.metrics.meter(0x20).sent == sent


def test_a_deadline_alone_travels_without_the_value(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.store().put(b"k", b"x" * 100_000)
    net.run(0.1)
    link = one.membership.links()[0]
    before = link.transport.written
    one.store().set_deadline(b"k", one.now_ms() + 9_000)
    net.run(0.1)
    assert two.store().deadline(b"k") == one.store().deadline(b"k")
    assert link.transport.written - before < 1000


def test_a_node_that_joins_gets_what_was_there_before(net: Network) -> None:
    one = net.node(1)
    for number in range(3000):
        one.store().put(b"key%d" % number, b"v%d" % number, one.now_ms() + 100_000 if number % 2 else 0)
    two = net.node(2, join=(one,))
    level(net, one, two)
    assert len(two.contents()) == 3000


def test_a_full_copy_travels_on_a_stream_of_its_own_which_changes_overtake(net: Network) -> None:
    one = net.node(1)
    for number in range(3000):
        one.store().put(b"%d" % number, b"v")
    two = net.node(2, join=(one,))
    net.until(lambda: len(two.store()) > 100)
    (link,) = one.membership.links()
    assert len(link.streams) == 1
    one.store().put(b"new", b"v")
    net.until(lambda: two.store().get(b"new") == b"v")
    assert len(two.store()) < 2900
    net.until(one.is_level, 60)
    assert len(two.store()) == 3001
    net.run(0.1)
    assert [len(each.streams) for each in (*one.membership.links(), *two.membership.links())] == [0, 0]


def test_a_full_copy_goes_between_all_else_where_the_peer_refuses_streams(net: Network) -> None:
    one = net.node(1)
    one.store().put(b"k", b"v")
    two = net.node(2, join=(one,))
    two.peers.settings = msgspec.structs.replace(two.peers.settings, streams_max=0)
    net.until(lambda: two.store().get(b"k") == b"v", 60)
    level(net, one, two)


def test_a_full_copy_goes_on_between_all_else_where_the_peer_gives_its_stream_up(net: Network) -> None:
    one = net.node(1)
    for number in range(500):
        one.store().put(b"%d" % number, b"v")
    two = net.node(2, join=(one,))
    net.until(lambda: len(two.store()) > 100)
    (link,) = two.membership.links()
    for stream_id in (1, 2):
        link.send(StreamReset(stream_id, 1, "no"))
    net.until(lambda: len(two.store()) == 500, 60)
    level(net, one, two)


def test_a_broken_link_heals_and_what_was_missed_both_ways_is_made_good(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    for key in (b"a", b"b", b"c"):
        one.store().put(key, b"old")
    level(net, one, two)
    net.cut(one, two)
    net.reset(one, two)
    net.run(1)
    assert not one.linked()
    one.store().delete(b"a")
    two.store().put(b"b", b"new")
    one.store().set_deadline(b"c", one.now_ms() + 50_000)
    net.run(9)
    net.heal()
    level(net, one, two, seconds=10)
    assert one.contents().keys() == {b"b", b"c"}
    assert one.store().get(b"b") == b"new"
    assert one.store().deadline(b"c") is not None


def test_a_flush_that_a_peer_missed_empties_it_when_it_is_back(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.store().put(b"old", b"v")
    level(net, one, two)
    net.cut(one, two)
    net.reset(one, two)
    net.run(0.5)
    one.store().flush()
    one.store().put(b"new", b"v")
    net.run(0.05)
    two.store().put(b"theirs", b"v")
    net.heal()
    level(net, one, two)
    assert one.contents().keys() == {b"new", b"theirs"}


def test_a_half_open_connection_is_cut_and_replaced(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    net.cut(one, two)
    one.store().put(b"k", b"v")
    net.run(10)
    assert not one.linked()
    assert not two.linked()
    net.heal()
    level(net, one, two, seconds=10)
    assert two.store().get(b"k") == b"v"


def test_a_killed_node_that_starts_again_is_level_again(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    for number in range(500):
        one.store().put(b"%d" % number, b"v")
    one.store().delete(b"7")
    level(net, one, two)
    one.kill()
    two.store().put(b"while away", b"v")
    net.run(1)
    again = net.node(1)
    assert again.identity.node_id == one.identity.node_id
    assert again.identity.boot == one.identity.boot + 1
    level(net, again, two)
    assert len(again.contents()) == 500


def test_what_is_deleted_on_a_restarted_node_before_it_meets_its_peer_stays_deleted(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.store().put(b"k", b"v")
    level(net, one, two)
    one.kill()
    again = net.node(1)
    again.store().put(b"k", b"newer")
    again.store().delete(b"k")
    level(net, again, two)
    assert again.contents() == {}


def test_a_node_that_starts_again_elsewhere_is_found_there(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    two.kill()
    moved = net.node(2, join=(one,), host="10.0.7.7")
    net.until(lambda: moved.linked() and one.linked())
    assert [member.address for member in one.membership.members] == [moved.address]
    net.reset(one, moved)
    net.until(lambda: moved.linked() and one.linked())
    assert len(one.membership.members) == 1


def test_a_lone_node_notes_nothing(net: Network) -> None:
    one = net.node(1)
    one.store().put(b"k", b"v")
    one.store().delete(b"k")
    assert one.store().dirty is None
    assert not one.store().tombstone(b"k")


def test_a_peer_that_does_not_read_costs_a_bounded_outbox_and_gets_a_full_copy(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    link = one.membership.links()[0]
    feed = one.replicator.feeds[link]
    copies = feed.copies
    link.transport.stuck = True
    for number in range(3000):
        one.store().put(b"%d" % number, b"v")
        net.clock.advance(0)
        assert len(feed.outbox) <= 1000
    assert feed.outbox.overflows
    link.transport.unstick()
    level(net, one, two)
    assert len(two.contents()) == 3000
    assert feed.copies == copies + 1


def test_flush_waits_for_what_was_just_written(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.store().put(b"k", b"v")
    fired: list[bool] = []
    one.replicator.flush().addCallback(lambda _: fired.append(two.store().get(b"k") == b"v"))
    assert not fired
    net.run(0.1)
    assert fired == [True]


def test_flush_of_a_lone_node_fires_at_once(net: Network) -> None:
    fired: list[object] = []
    net.node(1).replicator.flush().addCallback(fired.append)
    assert fired


def test_a_node_that_stops_says_goodbye_and_is_dialled_when_it_is_back(net: Network, pair: tuple[Node, Node]) -> None:
    one, two = pair
    one.membership.stop()
    one.heartbeats.stop()
    net.run(0.1)
    assert not two.linked()
    assert two.metrics.meter(0x05).received == 1
    one.kill()
    again = net.node(1)
    net.until(lambda: two.linked() and again.linked())


def test_a_full_peer_is_not_pressed_and_takes_the_rest_when_it_has_room(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,))
    net.until(lambda: one.linked() and two.linked())
    two.keyspace.maxmemory = two.keyspace.used_bytes() + 150_000
    for number in range(50):
        one.store().put(b"%d" % number, b"x" * 10_000)
    net.run(3)
    held = len(two.contents())
    assert 0 < held < 50
    sent = one.metrics.meter(0x20).sent
    net.run(10)
    assert one.metrics.meter(0x20).sent - sent < 50 * 10
    # Deletions pass at any time: they are what makes room.
    for number in range(40):
        one.store().delete(b"%d" % number)
    level(net, one, two, seconds=12)
    assert len(two.contents()) == 10


def test_stamps_too_far_ahead_are_put_off_and_never_move_the_clock(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,), ahead=90.0)
    net.until(lambda: one.linked() and two.linked())
    two.store().put(b"k", b"v")
    net.run(5)
    assert one.contents() == {}
    assert one.applier.skewed
    assert one.store().next_stamp() >> 80 < one.now_ms() + 1000
    one.store().put(b"other", b"v")
    net.run(0.1)
    assert two.store().get(b"other") == b"v"
    net.run(32)
    assert one.store().get(b"k") == b"v"


def test_later_stamps_exceed_the_clock_in_hello(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,), ahead=30.0)
    net.until(lambda: one.linked() and two.linked())
    assert one.store().next_stamp() >> 80 >= two.now_ms() - 1000


def test_a_value_too_large_for_the_peer_is_left_out_and_its_old_value_deleted(net: Network) -> None:
    one = net.node(1)
    two = net.node(2, join=(one,), max_frame=10_000)
    net.until(lambda: one.linked() and two.linked())
    one.store().put(b"k", b"small")
    net.run(0.1)
    one.store().put(b"k", b"x" * 20_000)
    one.store().put(b"other", b"v")
    net.run(1)
    assert two.contents() == {b"other": (b"v", 0)}
    assert [feed.oversized for feed in one.replicator.feeds.values()] == [1]
    assert one.store().get(b"k") == b"x" * 20_000
