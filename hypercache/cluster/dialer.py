"""Opens links: connects, says Hello, falls back to a base peer, and backs off from addresses that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from hypercache.errors import LinkLostError
from hypercache.limits import HELLO_TIMEOUT_SECONDS, RECONNECT_FIRST_SECONDS, RECONNECT_MAX_SECONDS
from hypercache.net.addresses import parse_address
from hypercache.net.peer import PeerLink
from hypercache.wire.messages import HelloReply

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from hypercache.cluster.membership import Membership
    from hypercache.net.peer import PeerFactory
    from hypercache.wire import Message

_log = Logger()
_CONNECT_SECONDS: Final = 10


class _OneLink(Factory):
    """Makes the link of one connection that is dialled."""

    noisy = False

    def __init__(self, shared: PeerFactory) -> None:
        self._shared = shared

    def buildProtocol(self, addr: Any) -> PeerLink:
        return PeerLink(self._shared, dialled=True)


class _Backoff:
    """How long to wait before an address is tried again: it doubles, with jitter, up to a cap."""

    def __init__(self) -> None:
        self.failures = 0
        self.due = 0.0
        self.base_peer = False
        self.reported = ""


class Dialer:
    """Opens links to addresses.

    `ClientService` keeps one connection to one place; here an address is left alone while its node is linked from the other
    side, and a second attempt may be made as a base peer, so the waiting is done here.

    Args:
        factory: what all links share.
        reactor: connects.
        rng: for the jitter.
        first_seconds: the first wait after a failure.
        max_seconds: the longest.
        hello_timeout: how long a peer may take to answer Hello, in seconds.
        endpoint_for: returns the endpoint of a host and a port; TCP where it is not given.
    """

    def __init__(
        self,
        factory: PeerFactory,
        reactor: Any,
        rng: random.Random,
        *,
        first_seconds: float = RECONNECT_FIRST_SECONDS,
        max_seconds: float = RECONNECT_MAX_SECONDS,
        hello_timeout: float = HELLO_TIMEOUT_SECONDS,
        endpoint_for: Callable[[str, int], Any] | None = None,
    ) -> None:
        self._factory = factory
        self._reactor = reactor
        self._rng = rng
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._hello_timeout = hello_timeout
        self._endpoint_for = endpoint_for or self._tcp
        self._backoffs: dict[str, _Backoff] = {}

    def is_due(self, address: str) -> bool:
        """Say whether an address may be tried now."""
        return self._reactor.seconds() >= self._backoff(address).due  # type: ignore[no-any-return]

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        self._backoffs.pop(address, None)

    def put_off(self, address: str, reason: str, *, hello: bool = False) -> None:
        """Wait before an address is tried again.

        Args:
            address: the address.
            reason: why; the operator is told when it changes.
            hello: say Hello again next time, even where the peer seemed to be a base peer.
        """
        backoff = self._backoff(address)
        if hello:
            backoff.base_peer = False
        if reason != backoff.reported:
            backoff.reported = reason
            _log.error("cannot link to {address}: {reason}", address=address, reason=reason)
        backoff.failures += 1
        wait = min(self._max_seconds, self._first_seconds * 2 ** min(backoff.failures, 30))
        backoff.due = self._reactor.seconds() + wait * self._rng.uniform(0.5, 1.0)

    def dial(self, address: str, membership: Membership) -> Deferred[PeerLink]:
        """Open a link.

        Args:
            address: where to.
            membership: says Hello and judges the answer.

        Returns:
            Fires with the link, greeted or of a base peer; fails where there is none, and the address is put off then.
        """
        host, port = parse_address(address)
        connecting = maybeDeferred(self._endpoint_for(host, port).connect, _OneLink(self._factory))
        connecting.addCallback(self._connected, address, membership)
        connecting.addErrback(self._failed, address)
        return connecting

    def _connected(self, link: PeerLink, address: str, membership: Membership) -> Any:
        if self._backoff(address).base_peer:
            return link
        greeted = membership.greet(link)
        greeted.addTimeout(self._hello_timeout, self._reactor)
        greeted.addCallbacks(
            self._greeted, self._not_greeted, callbackArgs=(link, address, membership), errbackArgs=(link, address, membership)
        )
        return greeted

    def _greeted(self, answer: Message, link: PeerLink, address: str, membership: Membership) -> PeerLink:
        if not isinstance(answer, HelloReply):
            # It answered Hello with an error: it knows nothing of it.
            self._backoff(address).base_peer = True
            link.lose("it does not know Hello; dialling again as to a base peer")
            raise LinkLostError("it does not know Hello")
        membership.identified(address, answer.node_id)
        refusal = membership.greeted(link, answer)
        if refusal is not None:
            link.lose(refusal)
            raise LinkLostError(refusal)
        link.become_extended()
        return link

    def _not_greeted(self, failure: Failure, link: PeerLink, address: str, membership: Membership) -> Any:
        # A node that has said Hello before is slow, or on its way down: without stamps writes would lose their order.
        self._backoff(address).base_peer = not membership.knows_hello(address)
        reason = "it did not answer Hello"
        link.lose(reason)
        raise LinkLostError(reason) from failure.value

    def _failed(self, failure: Failure, address: str) -> Any:
        self.put_off(address, failure.getErrorMessage() or repr(failure.value))
        return failure

    def _tcp(self, host: str, port: int) -> Any:
        return HostnameEndpoint(self._reactor, host, port, timeout=_CONNECT_SECONDS)

    def _backoff(self, address: str) -> _Backoff:
        backoff = self._backoffs.get(address)
        if backoff is None:
            backoff = self._backoffs[address] = _Backoff()
        return backoff
