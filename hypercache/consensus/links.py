"""Raft's messages over the links between members: requests go out with their answers' way back, and come in with theirs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from hypercache.errors import BusyError, HyperCacheError, MalformedMessageError, MessageTooLargeError, RequestError
from hypercache.handlers.sender import impostor
from hypercache.interfaces import IMessageHandler
from hypercache.limits import RAFT_ANSWERS_MAX_COUNT
from hypercache.wire import ErrorCode
from hypercache.wire.messages import (
    AppendEntries,
    GenericError,
    InstallSnapshot,
    PreVoteRequest,
    Propose,
    ReadIndex,
    TimeoutNow,
    VoteRequest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.link import PeerLink
    from hypercache.net.peer import PeerContext
    from hypercache.raft import Outbound
    from hypercache.wire import Message

SENDERS: Final[dict[Any, str]] = {
    VoteRequest: "candidate_id",
    PreVoteRequest: "candidate_id",
    AppendEntries: "leader_id",
    InstallSnapshot: "leader_id",
    TimeoutNow: "leader_id",
    Propose: "client_id",
    ReadIndex: "",
}
"""The requests of Raft, and the field of each that must name the peer; none where it names nobody."""


class Links:
    """The peers of a `Consensus`, over the links of a membership.

    Args:
        link_to: returns the link to a member, None where there is none now.
        step: `Consensus.step`.
        timeout: seconds after which an answer does not come any more.
    """

    def __init__(
        self, link_to: Callable[[int], PeerLink | None], step: Callable[[int, Message, int], None], timeout: float
    ) -> None:
        self._link_to = link_to
        self._step = step
        self._timeout = timeout
        self._numbers = 0
        # What peers asked and the core has not answered, with the link it came over.
        self._asked: dict[int, tuple[Deferred[Message], PeerLink]] = {}
        # Those that hold back what is sent until `flush`.
        self._written: list[PeerLink] = []
        self._stopped = False

    def send(self, outbound: Outbound) -> None:
        """Send a message of the core, or lose it (`hypercache.consensus.contracts.Transport`)."""
        message = outbound.message
        if outbound.reply:
            asked = self._asked.pop(outbound.exchange, None)
            if asked is not None:
                answer, asker = asked
                self._gather(asker)
                answer.callback(message)
            return
        link = self._link_to(outbound.to)
        if link is None or not link.extended:
            return
        self._gather(link)
        try:
            if message.ANSWER < 0:
                link.send(message)
            else:
                link.ask(message, partial(self._answered, outbound.to, outbound.exchange), timeout=self._timeout)
        except (RequestError, MessageTooLargeError):
            # The core takes it for lost.
            pass

    def flush(self) -> None:
        """Write what was sent, but for what leaves with the answers to a read that is under way."""
        for link in self._written:
            link.outgoing.batching = False
            link.outgoing.settle()
        self._written.clear()

    def _gather(self, link: PeerLink) -> None:
        """Hold back what is sent over a link until `flush`, if a read is not under way, at whose end it leaves."""
        outgoing = link.outgoing
        if not outgoing.batching:
            outgoing.batching = True
            self._written.append(link)

    def stop(self) -> None:
        """Answer nothing any more, and say so: whoever waits need not wait out its deadline, and links end in good order."""
        self._stopped = True
        asked, self._asked = self._asked, {}
        for answer, _ in asked.values():
            answer.callback(_shutting_down())

    def _answered(self, peer: int, exchange: int, number: int, answer: Message | RequestError) -> None:
        if isinstance(answer, RequestError | GenericError):
            return
        try:
            self._step(peer, answer, exchange)
        except MalformedMessageError as error:
            self._cut(peer, error)

    def _cut(self, peer: int, error: HyperCacheError) -> None:
        link = self._link_to(peer)
        if link is not None:
            link.cut(f"its answer is none: {error}")

    def receive(self, link: PeerLink, message: Message) -> Deferred[Message] | None:
        """Take a request of the peer of a link.

        Returns:
            Fires with its answer; None where none is due.

        Raises:
            BusyError: too many wait for their answers.
            MalformedMessageError: it holds what no member of the group sends.
        """
        if message.ANSWER < 0:
            self._step(link.node_id, message, 0)
            return None
        if self._stopped:
            return succeed(_shutting_down())
        if len(self._asked) >= RAFT_ANSWERS_MAX_COUNT:
            # The oldest are those that the core will never answer: a request of an ended term, say.
            raise BusyError("too many requests of Raft wait for their answers")
        self._numbers += 1
        number = self._numbers
        answer: Deferred[Message] = Deferred()
        self._asked[number] = answer, link
        try:
            self._step(link.node_id, message, number)
        except MalformedMessageError:
            self._asked.pop(number, None)
            raise
        return answer


def _shutting_down() -> GenericError:
    return GenericError(ErrorCode.SHUTTING_DOWN, 0, "this node shuts down")


@implementer(IMessageHandler)
class RaftHandler:
    """Hands one type of Raft's requests to the core.

    Args:
        request: the type, one of `SENDERS`.
        links: the peers.
    """

    requires_auth = True

    def __init__(self, request: type[Any], links: Links) -> None:
        self.message_type = request.TYPE
        self._sender = SENDERS[request]
        self._links = links

    def handle(self, context: PeerContext, message: Any) -> Deferred[Message] | GenericError | None:
        """Return what the core answers, when it does."""
        link = context.link
        refusal = impostor(link, getattr(message, self._sender)) if self._sender else None
        if refusal is not None:
            return refusal
        try:
            return self._links.receive(link, message)
        except BusyError as error:
            return GenericError(ErrorCode.RATE_LIMITED, 0, str(error))
        except MalformedMessageError as error:
            link.factory.clock.callLater(0, link.lose, f"it sends what no member does: {error}")
            return GenericError(ErrorCode.MALFORMED_MESSAGE, 0, str(error))
