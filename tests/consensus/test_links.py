from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypercache.consensus.links import Links
from hypercache.raft import Outbound
from hypercache.wire.messages import AppendEntries, AppendResponse, TimeoutNow

if TYPE_CHECKING:
    from hypercache.wire import Message


class Outgoing:
    """What a link writes: what is put in leaves when it is settled, or at once where nobody holds it back."""

    def __init__(self) -> None:
        self.batching = False
        self.held: list[Message] = []
        self.written: list[list[Message]] = []

    def put(self, message: Message) -> None:
        self.held.append(message)
        if not self.batching:
            self.settle()

    def settle(self) -> None:
        if self.held:
            self.written.append(self.held)
            self.held = []


class Link:
    """A link to a member."""

    extended = True

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.outgoing = Outgoing()

    def send(self, message: Message) -> None:
        self.outgoing.put(message)

    def ask(self, message: Message, sink: Any, *, timeout: float) -> None:
        self.outgoing.put(message)


APPEND = AppendEntries(1, 1, 0, 0, 0, ())
LAST_WORD = TimeoutNow(1, 1)


def linked(*nodes: int) -> tuple[Links, dict[int, Link]]:
    members = {node: Link(node) for node in nodes}
    return Links(members.get, lambda sender, message, exchange: None, 5.0), members  # type: ignore[arg-type]


def test_what_is_sent_over_a_link_leaves_at_once_with_the_flush() -> None:
    links, members = linked(2, 3)
    for message in (APPEND, LAST_WORD):
        for node in members:
            links.send(Outbound(node, message, 1, False))
    assert not any(link.outgoing.written for link in members.values())
    links.flush()
    for link in members.values():
        assert link.outgoing.written == [[APPEND, LAST_WORD]]
        assert not link.outgoing.batching


def test_during_a_read_of_a_link_it_leaves_with_the_answers_to_that() -> None:
    links, members = linked(2)
    outgoing = members[2].outgoing
    outgoing.batching = True
    links.send(Outbound(2, APPEND, 1, False))
    links.flush()
    assert outgoing.batching
    assert not outgoing.written


def test_an_answer_leaves_with_the_flush_too() -> None:
    links, members = linked(2)
    link = members[2]
    answer = links.receive(link, APPEND)  # type: ignore[arg-type]
    assert answer is not None
    answer.addCallback(link.send)
    said = AppendResponse(1, True, 0, 0)
    links.send(Outbound(2, said, 1, True))
    links.send(Outbound(2, LAST_WORD, 0, False))
    assert not link.outgoing.written
    links.flush()
    assert link.outgoing.written == [[said, LAST_WORD]]
