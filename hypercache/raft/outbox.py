"""What a node says, and what it may not say yet: promises wait until the disk keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from hypercache.raft.ready import Outbound
from hypercache.wire.messages import VoteRequest

if TYPE_CHECKING:
    from hypercache.wire.schema import Message


class _Held(msgspec.Struct, gc=False):
    """A message that promises what is not durable yet; `number` is the ready that makes it so, 0 while it is not made."""

    outbound: Outbound
    number: int = 0


class Outbox:
    """The messages of one node.

    Attributes:
        last_exchange: the number of the last request.
    """

    __slots__ = ("_held", "_messages", "last_exchange")

    def __init__(self) -> None:
        self.last_exchange = 0
        self._messages: list[Outbound] = []
        self._held: list[_Held] = []

    def request(self, to: int, message: Message) -> int:
        """Send what is to be answered; return its exchange."""
        self.last_exchange += 1
        outbound = Outbound(to, message, self.last_exchange, False)
        # A request for votes rests on the candidate's own vote: after a crash it must not campaign in this term with another log.
        if type(message) is VoteRequest:
            self._held.append(_Held(outbound))
        else:
            self._messages.append(outbound)
        return self.last_exchange

    def tell(self, to: int, message: Message) -> None:
        """Send what has no answer."""
        self._messages.append(Outbound(to, message, 0, False))

    def reply(self, to: int, message: Message, exchange: int) -> None:
        """Answer with what promises nothing that is not durable."""
        self._messages.append(Outbound(to, message, exchange, True))

    def promise(self, to: int, message: Message, exchange: int) -> None:
        """Answer once all that was taken until now is durable."""
        self._held.append(_Held(Outbound(to, message, exchange, True)))

    def bind(self, number: int) -> None:
        """Bind what is held to a ready: the newest that is not durable yet; 0 where all is durable, and it may leave."""
        held = self._held
        if not number:
            self._messages += [item.outbound for item in held]
            held.clear()
            return
        for item in reversed(held):
            if item.number:
                break
            item.number = number

    def release(self, number: int) -> bool:
        """Let leave what was bound to the readies up to one that is now durable; return whether there is any."""
        held = self._held
        count = 0
        while count < len(held) and 0 < held[count].number <= number:
            self._messages.append(held[count].outbound)
            count += 1
        del held[:count]
        return count > 0

    def take(self) -> tuple[Outbound, ...]:
        """Return what may leave now."""
        messages = tuple(self._messages)
        self._messages.clear()
        return messages
