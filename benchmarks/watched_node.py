"""A node that watches its own loop, and prints the longest pause at its end.

Run as ``python -m benchmarks.watched_node PORT DIRECTORY OVERRIDE …``.
"""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor
from twisted.internet.task import LoopingCall

from hypercache.config import load_settings
from hypercache.roles.node import NodeService

_TICK_SECONDS = 0.001
_WARM_UP_SECONDS = 1.0


class Watch:
    """Measures by how much a call that is due each millisecond comes late."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._begun = self._last = time.perf_counter()

    def tick(self) -> None:
        """Note the time since the last tick."""
        now = time.perf_counter()
        if now - self._begun > _WARM_UP_SECONDS:
            self.longest = max(self.longest, now - self._last - _TICK_SECONDS)
        self._last = now


def main() -> None:
    """Run the node until it is told to stop."""
    port, directory, *overrides = sys.argv[1:]
    places = [f"resp.listen={port}", "cluster.listen=0", "admin.listen=off", f"node.data_dir={directory}"]
    service = NodeService(load_settings("", [*places, *overrides]), reactor)
    watch = Watch()
    service.startService()
    LoopingCall(watch.tick).start(_TICK_SECONDS)
    reactor.addSystemEventTrigger("before", "shutdown", lambda: print(watch.longest * 1000, flush=True))
    reactor.run()


if __name__ == "__main__":
    main()
