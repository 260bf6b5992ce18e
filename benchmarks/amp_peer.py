"""One side of an AMP connection, Twisted's own: it echoes, or asks for echoes.

Run as ``python -m benchmarks.amp_peer`` and ``python -m benchmarks.amp_peer PORT``.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from benchmarks.asking import Asking, keep_in_flight, listen_to_orders, say

CONTENT = bytes(100)


class Echo(amp.Command):
    """Asks for its content back."""

    arguments = [(b"data", amp.String())]  # noqa: RUF012 - as AMP wants it
    response = [(b"data", amp.String())]  # noqa: RUF012


class Echoing(amp.AMP):
    """Answers."""

    def echo(self, data: bytes) -> dict[str, bytes]:
        """Answer with what came."""
        return {"data": data}

    Echo.responder(echo)


def _answer() -> None:
    listening: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory.forProtocol(Echoing))
    listening.addCallback(lambda port: say(f"ready {port.getHost().port}"))


def _ask(port: int) -> None:
    def connected(peer: amp.AMP) -> None:
        listen_to_orders(Asking(lambda task: keep_in_flight(lambda: peer.callRemote(Echo, data=CONTENT), task)), reactor)

    connecting: Any = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), amp.AMP())
    connecting.addCallback(connected)


def main() -> None:
    """Run until killed."""
    if len(sys.argv) > 1:
        _ask(int(sys.argv[1]))
    else:
        _answer()
    loop: Any = reactor
    loop.run()


if __name__ == "__main__":
    main()
