"""Every half second each member hears that this node lives, and how busy it is; a link that is silent is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psutil
from twisted.internet.task import LoopingCall

from hypercache.errors import RequestError
from hypercache.limits import HEARTBEAT_INTERVAL_SECONDS, LINK_SILENCE_SECONDS
from hypercache.wire.messages import Heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from hypercache.cluster.membership import Membership

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
            # Any traffic counts as life.
            if link.silence(now) > self._silence:
                link.cut(f"nothing was heard for {self._silence:g} seconds")
            else:
                link.request(message).addErrback(_unanswered)


def _unanswered(failure: Failure) -> None:
    """Leave it to the link, whose exchanges have a deadline, and to the silence."""
    failure.trap(RequestError)
