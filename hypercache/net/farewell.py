"""How a link ends in good order: nothing new is asked, what was asked is answered, and both sides say Goodbye."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.net.lifecycle import LinkState
from hypercache.wire.messages import Goodbye

if TYPE_CHECKING:
    from hypercache.net.link import PeerLink

_REASON_MAX_CHARACTERS = 63
"""What fits the length byte of a reason whatever its characters are."""


class Farewell:
    """The end of one link. It may take `LINK_LINGER_SECONDS`, which is how long the state CLOSING lasts.

    Args:
        link: the link.
    """

    __slots__ = ("_heard", "_link", "_said")

    def __init__(self, link: PeerLink) -> None:
        self._link = link
        self._said = False
        self._heard = False

    @property
    def begun(self) -> bool:
        """Whether one side has said Goodbye."""
        return self._said or self._heard

    def begin(self, code: int, reason: str) -> None:
        """Say Goodbye.

        Args:
            code: an error code that tells why, or 0.
            reason: the same in words.
        """
        link = self._link
        if self.begun:
            return
        if not link.extended or link.state is not LinkState.CONNECTED:
            link.lose(reason)
            return
        link.ending = reason
        self._say(code, reason)

    def heard(self, goodbye: Goodbye) -> None:
        """Ask nothing more, and answer what the peer has asked."""
        link = self._link
        if not link.ending:
            link.ending = f"the peer says goodbye: {goodbye.reason}"
        self._heard = True
        if not self._said:
            self._say(goodbye.code, "goodbye")
        self.check()

    def check(self) -> None:
        """Close once both sides have said goodbye and nothing is open any more."""
        link = self._link
        if self._said and self._heard and not (len(link.exchanges) or len(link.streams) or link.answers_pending):
            link.lose(link.ending)

    def _say(self, code: int, reason: str) -> None:
        self._said = True
        self._link.send(Goodbye(code, reason[:_REASON_MAX_CHARACTERS]))
        self._link.machine.close()
        self.check()
