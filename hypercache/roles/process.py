"""What a node asks of the process that it runs in."""

from __future__ import annotations

import gc
import resource
import time
from typing import Any, Final

from twisted.logger import Logger

_log = Logger()
_DESCRIPTORS_BESIDE_CLIENTS: Final = 128


def tune_garbage_collection() -> None:
    """Have the collector look seldom, and never at what is there now."""
    # What exists now stays for good: it need never be looked at again. Stores hold nothing that the collector tracks, so what
    # is left to it is short-lived, and looking often only costs.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def make_time_steady(reactor: Any) -> None:
    """Have a reactor's timers follow a clock that nobody sets, so that a step of the wall clock neither stops nor fires them.

    It goes on while the machine sleeps: a lease ends in its sleep.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    read = time.clock_gettime
    # What is scheduled already was so by the wall clock; from now on it goes on at the same pace.
    offset = reactor.seconds() - read(clock)
    reactor.seconds = lambda: offset + read(clock)


def raise_file_limit(max_clients: int) -> None:
    """Allow as many open sockets as clients may come, or say that there are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_clients + _DESCRIPTORS_BESIDE_CLIENTS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        if possible < wanted:
            _log.warn(
                "only {possible} files may be open (ulimit -n), so fewer than resp.max_clients = {max} clients fit",
                possible=possible,
                max=max_clients,
            )
