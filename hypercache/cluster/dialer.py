"""Opens links: connects, shakes hands, falls back to a base peer where that is allowed, and keeps an address linked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hypercache.limits import CONNECT_TIMEOUT_SECONDS, RECONNECT_FIRST_SECONDS, RECONNECT_MAX_SECONDS
from hypercache.net.addresses import parse_address
from hypercache.net.link import Meant
from hypercache.net.negotiation import UnspokenError
from hypercache.net.peer import PeerLink

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

    from hypercache.net.peer import PeerFactory

_log = Logger()
_DOUBLINGS_MAX: Final = 30


class _OneLink(Factory):
    """Makes a connection that is dialled the one of a link."""

    noisy = False

    def __init__(self, link: PeerLink) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> PeerLink:
        return self._link


class Dialer:
    """Opens links to addresses.

    Args:
        factory: what all links share.
        reactor: connects.
        rng: for the jitter.
        first_seconds: the first wait after a failure; it doubles.
        max_seconds: the longest.
        connect_timeout: seconds that a connection may take to be made.
        endpoint_for: returns the endpoint of a host and a port; TCP where it is not given.
        secure: wraps a protocol factory into TLS as a client, given the host; None for plain links.
    """

    def __init__(
        self,
        factory: PeerFactory,
        reactor: Any,
        rng: random.Random,
        *,
        first_seconds: float = RECONNECT_FIRST_SECONDS,
        max_seconds: float = RECONNECT_MAX_SECONDS,
        connect_timeout: float = CONNECT_TIMEOUT_SECONDS,
        endpoint_for: Callable[[str, int], Any] | None = None,
        secure: Callable[[Factory, str], Any] | None = None,
    ) -> None:
        self._factory = factory
        self.reactor = reactor
        self._rng = rng
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._connect_timeout = connect_timeout
        self._endpoint_for = endpoint_for or self._tcp
        self._secure = secure

    @property
    def base_peers_allowed(self) -> bool:
        """Whether a peer that knows no Hello may be linked."""
        terms = self._factory.terms
        return self._secure is None and terms is not None and not terms.provider.required

    def wait_seconds(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        wait: float = min(self._max_seconds, self._first_seconds * 2 ** min(failures, _DOUBLINGS_MAX))
        return wait * self._rng.uniform(0.5, 1.0)

    async def open(self, address: str, meant_id: int, *, base_peer: bool) -> PeerLink:
        """Open a link.

        Args:
            address: where to.
            meant_id: the node that is meant; 0 for whichever is there.
            base_peer: say no Hello: the peer knows none.

        Returns:
            The link, connected.

        Raises:
            UnspokenError: the peer knows no Hello.
            HyperCacheError: there can be no link; the text says why.
        """
        host, port = parse_address(address)
        link = PeerLink(self._factory, dialled=True)
        link.meant = Meant(address, meant_id)
        factory: Any = _OneLink(link)
        if self._secure is not None:
            factory = self._secure(factory, host)
        link.machine.dial()
        connecting = maybeDeferred(self._endpoint_for(host, port).connect, factory)
        try:
            await connecting
        except BaseException:
            link.machine.lose()
            raise
        try:
            if self._secure is not None:
                await link.when_secured()
            if base_peer:
                link.become_base()
            else:
                await link.negotiate()
        except BaseException as error:
            link.lose(str(error) or "the attempt was given up")
            raise
        return link

    def _tcp(self, host: str, port: int) -> Any:
        return HostnameEndpoint(self.reactor, host, port, timeout=self._connect_timeout)


class _Presence(Protocol):
    """Stands for the link of an address towards the `ClientService` that keeps it: the link itself may be replaced."""

    link: PeerLink | None = None


class _Presences(Factory):
    """Makes presences, and remembers the last."""

    noisy = False
    latest: _Presence

    def buildProtocol(self, addr: Any) -> _Presence:
        self.latest = _Presence()
        return self.latest


class _Leave:
    """The transport of a presence: whoever closes it retires the link."""

    def __init__(self, presence: _Presence) -> None:
        self._presence = presence

    def loseConnection(self) -> None:
        link = self._presence.link
        if link is not None:
            link.retire("it is needed no more")


@implementer(IStreamClientEndpoint)
class Reach:
    """Keeps one address linked, until it is stopped.

    Args:
        address: where.
        meant_id: the node that is meant; 0 for whichever is there.
        dialer: opens links.
        introduce: makes a connected link one of the cluster's; called with the link and this, it fails where that cannot be.

    Attributes:
        address: where.
        spoke_hello: the node there has said Hello before: it is no base peer, and is never taken for one.
    """

    def __init__(
        self,
        address: str,
        meant_id: int,
        dialer: Dialer,
        introduce: Callable[[PeerLink, Reach], Coroutine[Deferred[Any], Any, None]],
    ) -> None:
        self.address = address
        self.spoke_hello = False
        self._meant_id = meant_id
        self._dialer = dialer
        self._introduce = introduce
        self._base_peer = False
        self._reported = ""
        self._presence: _Presence | None = None
        self._end: Callable[[Failure], object] = _nobody
        self._renewing = False
        self._presences = _Presences()
        self._service = ClientService(self, self._presences, dialer.wait_seconds, dialer.reactor)

    def __str__(self) -> str:
        return self.address

    @property
    def link(self) -> PeerLink | None:
        """The link that it keeps; None while there is none."""
        return self._presence.link if self._presence is not None else None

    def start(self) -> None:
        """Link, and link again whenever the link is lost."""
        self._service.startService()

    def stop(self) -> None:
        """Link no more; a link that there is ends in good order."""
        stopping: Deferred[None] = maybeDeferred(self._service.stopService)
        stopping.addErrback(lambda failure: failure.trap(CancelledError))

    def renew(self) -> None:
        """Open another link beside the present one, which it replaces: its credentials end soon."""
        if not self._renewing:
            self._renewing = True
            renewal: Deferred[None] = ensureDeferred(self._renew())
            renewal.addErrback(self._report)
            renewal.addBoth(self._renewed)

    def connect(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: N803 - IStreamClientEndpoint's name
        """Open a link and introduce it: one attempt of the service's."""
        attempt: Deferred[Any] = ensureDeferred(self._attempt(protocolFactory))
        attempt.addErrback(self._report_and_fail)
        return attempt

    async def _attempt(self, protocols: Any) -> Any:
        link = await self._open()
        kept = protocols.buildProtocol(None)
        self._presence = self._presences.latest
        # Whoever follows the link ends the presence, which tells the service.
        self._end = kept.connectionLost
        kept.makeConnection(_Leave(self._presence))
        self._follow(link)
        self._reported = ""
        return kept

    async def _open(self) -> PeerLink:
        try:
            link = await self._dialer.open(self.address, self._meant_id, base_peer=self._base_peer)
        except UnspokenError:
            # A node that has said Hello before is slow, or on its way down: without stamps writes would lose their order.
            self._base_peer = not self.spoke_hello and self._dialer.base_peers_allowed
            raise
        try:
            await self._introduce(link, self)
        except BaseException as error:
            self._base_peer = False
            link.lose(str(error) or "the attempt was given up")
            raise
        self.spoke_hello = link.extended
        return link

    async def _renew(self) -> None:
        link = await self._open()
        if self._presence is None or self._presence.link is None:
            link.retire("it came too late to replace another")
        else:
            self._follow(link)

    def _renewed(self, result: object) -> None:
        self._renewing = False

    def _follow(self, link: PeerLink) -> None:
        assert self._presence is not None
        self._presence.link = link
        link.when_lost().addCallback(self._lost, link)

    def _lost(self, _: object, link: PeerLink) -> None:
        presence = self._presence
        if presence is not None and presence.link is link:
            self._presence = presence.link = None
            self._dialer.reactor.callLater(0, self._end, Failure(ConnectionClosed(link.ending)))

    def _report(self, failure: Failure) -> None:
        """Tell the operator why there is no link, where that is news."""
        reason = failure.getErrorMessage() or repr(failure.value)
        if failure.check(CancelledError):
            return
        if reason != self._reported:
            self._reported = reason
            _log.error("cannot link to {address}: {reason}", address=self.address, reason=reason)

    def _report_and_fail(self, failure: Failure) -> Failure:
        self._report(failure)
        return failure


def _nobody(failure: Failure) -> None:
    """There is no presence to end."""
