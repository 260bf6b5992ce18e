"""Every half second each member hears that this node lives, and how busy it is; a link that is silent is cut."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

import psutil
from twisted.internet.task import LoopingCall

from hypercache.errors import LinkLostError
from hypercache.limits import ANSWER_SILENCE_SECONDS, HEARTBEAT_INTERVAL_SECONDS, LINK_SILENCE_SECONDS
from hypercache.wire.messages import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerLink
    from hypercache.wire import Message

LOAD_MAX: Final = 10_000


def cpu_load() -> int:
    """Return the machine's CPU use since the last call, in hundredths of a per cent."""
    percent: float = psutil.cpu_percent(None)
    return min(LOAD_MAX, round(percent * 100))


class Heartbeats:
    """Sends heartbeats over every member's link.

    Args:
        membership: the links.
        clock: the reactor.
        wall: returns Unix seconds.
        load: returns the load in hundredths of a per cent.
        interval: seconds between two beats.
        silence: seconds after which a link over which nothing came is cut.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        clock: Any,
        wall: Callable[[], float],
        load: Callable[[], int] = cpu_load,
        interval: float = HEARTBEAT_INTERVAL_SECONDS,
        silence: float = LINK_SILENCE_SECONDS,
    ) -> None:
        self._membership = membership
        self._clock = clock
        self._wall = wall
        self._load = load
        self._interval = interval
        self._silence = silence
        # When the heartbeats that are not answered yet went out.
        self._unanswered: dict[PeerLink, deque[float]] = {}
        self._beat = LoopingCall(self._send)
        self._beat.clock = clock

    def start(self) -> None:
        """Begin."""
        self._beat.start(self._interval)

    def stop(self) -> None:
        """End."""
        if self._beat.running:
            self._beat.stop()

    def _send(self) -> None:
        message = Heartbeat(self._membership.identity.node_id, int(self._wall() * 1e9), self._load())
        now = self._clock.seconds()
        for link in self._membership.links():
            # Any traffic counts as life; yet a peer that owes an answer for very long has lost count, and never catches up.
            unanswered = self._unanswered.setdefault(link, deque())
            if now - link.last_heard > self._silence:
                _cut(link, f"nothing was heard for {self._silence:g} seconds")
            elif unanswered and now - unanswered[0] > ANSWER_SILENCE_SECONDS:
                _cut(link, f"a heartbeat was not answered for {ANSWER_SILENCE_SECONDS:g} seconds")
            else:
                unanswered.append(now)
                link.request(message).addCallbacks(self._heard, self._lost, callbackArgs=(link,), errbackArgs=(link,))

    def _heard(self, answer: Message, link: PeerLink) -> None:
        unanswered = self._unanswered.get(link)
        if unanswered:
            unanswered.popleft()

    def _lost(self, failure: Any, link: PeerLink) -> None:
        failure.trap(LinkLostError)
        self._unanswered.pop(link, None)


def _cut(link: PeerLink, reason: str) -> None:
    """Close a link at once: what is queued would keep a half-open connection alive."""
    link.lose(reason)
    link.transport.abortConnection()
