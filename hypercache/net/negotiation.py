"""How two nodes come to trust a link: Hello, HelloReply, and where the provider wants them, AuthProof and AuthResult."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from hypercache.auth.handshake import Handshake
from hypercache.errors import AuthenticationError, LinkLostError
from hypercache.net.lifecycle import LinkState
from hypercache.net.tls import channel_binding, peer_identity
from hypercache.wire import Capability, ErrorCode, Status
from hypercache.wire.header import HIGHEST_VERSION
from hypercache.wire.messages import PROOF_BYTES, AuthProof, AuthResult, GenericError, Hello, HelloReply

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercache.net.link import PeerLink
    from hypercache.wire import Message

HANDSHAKE_TYPES: Final = frozenset((Hello.TYPE, HelloReply.TYPE, AuthProof.TYPE, AuthResult.TYPE))


class UnspokenError(LinkLostError):
    """The peer does not know Hello: it is a base peer."""


class Terms(Protocol):
    """On what terms a node lets others link with it; the cluster's membership knows.

    Attributes:
        provider: its `IAuthProvider`.
        failure_delay: seconds before a failed authentication is answered.
        wall: returns Unix seconds.
    """

    provider: Any
    failure_delay: float
    wall: Callable[[], float]

    def hello(self, cls: type[Hello | HelloReply], key_id: str) -> Hello | HelloReply:
        """Return this node's greeting."""
        ...

    def judge(self, link: PeerLink, greeting: Hello | HelloReply) -> str | None:
        """Return why the link cannot be, by what the peer says of itself; None where it can."""
        ...

    def renew(self, link: PeerLink) -> None:
        """Take note that the credentials of a link end soon."""
        ...

    def settle(self, link: PeerLink) -> str | None:
        """Return why the link of a peer that is who it says must not stay; None where it stays."""
        ...


class Negotiation:
    """One side of the handshake of one link.

    Args:
        link: the link.
        terms: on what terms this node links.
    """

    __slots__ = ("_authentication", "_doubt", "_hello", "_hello_frame", "_link", "_outcome", "_reply", "_reply_frame", "_terms")

    def __init__(self, link: PeerLink, terms: Terms) -> None:
        self._link = link
        self._terms = terms
        self._hello: Any = None
        self._hello_frame = b""
        self._reply: Any = None
        self._reply_frame = b""
        self._authentication: Any = None
        # Why the peer will be refused once it has shown its proof.
        self._doubt: str | None = None
        self._outcome: Deferred[None] | None = None

    @property
    def greeting(self) -> Hello | HelloReply | None:
        """What the peer said of itself; None while it has said nothing."""
        greeting: Hello | HelloReply | None = self._reply if self._link.dialled else self._hello
        return greeting

    @property
    def said(self) -> Hello | HelloReply | None:
        """What this node said of itself; None while it has said nothing."""
        said: Hello | HelloReply | None = self._hello if self._link.dialled else self._reply
        return said

    def start(self) -> Deferred[None]:
        """Say Hello over a link that this side dialled.

        Returns:
            Fires when the link is connected; fails with `UnspokenError` where the peer knows no Hello, with `LinkLostError` or
            `AuthenticationError` where there can be no link.
        """
        self._outcome = Deferred()
        self._hello = self._terms.hello(Hello, self._terms.provider.key_id())
        self._hello_frame = self._hello.encode_frame()
        self._link.send_frame(self._hello_frame, Hello.TYPE)
        return self._outcome

    def received(self, message: Message, frame: bytes) -> None:
        """Take a message of the handshake, and its frame as sent."""
        state = self._link.state
        # Only base peers are resynchronised with (wire.md, section 2).
        self._link.decoder.strict = True
        if isinstance(message, Hello) and state is LinkState.HANDSHAKING and not self._link.dialled:
            self._greeted(message, frame)
        elif isinstance(message, HelloReply) and state is LinkState.HANDSHAKING and self._hello is not None:
            self._answered(message, frame)
        elif isinstance(message, AuthProof) and state is LinkState.AUTHENTICATING and not self._link.dialled:
            self._challenged(message)
        elif isinstance(message, AuthResult) and state is LinkState.AUTHENTICATING and self._link.dialled:
            self._judged(message)
        else:
            self.fail(LinkLostError(f"{type(message).__name__} came out of turn"))

    def refused(self, error: GenericError) -> None:
        """Take an error that came while this side waits."""
        if self._link.state is LinkState.AUTHENTICATING or error.error_code == ErrorCode.NOT_AUTHORIZED:
            self.fail(AuthenticationError(f"the peer refuses to authenticate this node (0x{error.error_code:04x})"))
        elif error.error_code == ErrorCode.UNKNOWN_MESSAGE_TYPE:
            self.fail(UnspokenError("it does not know Hello"))
        else:
            self.fail(LinkLostError(f"it answers Hello with the error 0x{error.error_code:04x}: {error.message}"))

    def expired(self) -> None:
        """The state's time is over."""
        if self._link.state is LinkState.AUTHENTICATING:
            self.fail(AuthenticationError("it did not authenticate in time"))
        elif self._link.dialled and self._outcome is not None:
            self.fail(UnspokenError("it did not answer Hello"))
        else:
            self.fail(LinkLostError("it did not say Hello in time"))

    def fail(self, error: Exception) -> None:
        """End the link for a reason."""
        link = self._link
        if isinstance(error, AuthenticationError):
            link.factory.metrics.auth_failures += 1
            link.factory.reports.error("authentication with {address} failed: {reason}", address=link.address, reason=str(error))
        link.lose(str(error), fault=isinstance(error, AuthenticationError))
        self._settle_outcome(error)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        if self._reply is None:
            self._settle_outcome(UnspokenError(f"it closed the connection at Hello: {reason}"))
        else:
            self._settle_outcome(LinkLostError(f"the connection was closed during the handshake: {reason}"))

    # The listener

    def _greeted(self, hello: Hello, frame: bytes) -> None:
        self._hello, self._hello_frame = hello, frame
        terms, link = self._terms, self._link
        refusal = terms.judge(link, hello)
        self._reply = terms.hello(HelloReply, hello.key_id)
        self._reply_frame = self._reply.encode_frame()
        # The reply goes out in any case: from it the dialler learns why this is no peer for it.
        link.send_frame(self._reply_frame, HelloReply.TYPE)
        if refusal is not None:
            self.fail(LinkLostError(refusal))
            return
        try:
            self._authentication = terms.provider.authenticate(self._handshake())
        except AuthenticationError as error:
            self._doubt = str(error)
        if terms.provider.proves:
            link.machine.challenge()
        elif self._doubt is not None:
            self._refuse(self._doubt, GenericError(ErrorCode.NOT_AUTHORIZED, 0, "not authorized"))
        else:
            self._trust()

    def _challenged(self, proof: AuthProof) -> None:
        doubt = self._doubt
        if doubt is None and not self._authentication.verify(proof.proof):
            doubt = "its proof is wrong: another key, or the greeting was changed on the way"
        if doubt is not None:
            self._refuse(doubt, AuthResult(Status.ERROR, ErrorCode.NOT_AUTHORIZED, bytes(PROOF_BYTES)))
            return
        self._link.send_frame(AuthResult(Status.SUCCESS, 0, self._authentication.proof).encode_frame(), AuthResult.TYPE)
        self._trust()

    def _refuse(self, reason: str, answer: Message) -> None:
        """Tell the peer no more than that, and not at once: guessing takes time."""
        link = self._link
        link.deafen()
        link.put_off_deadline(self._terms.failure_delay)
        link.factory.clock.callLater(self._terms.failure_delay, self._refuse_late, reason, answer)

    def _refuse_late(self, reason: str, answer: Message) -> None:
        if self._link.connected_now:
            self._link.send_frame(answer.encode_frame(), answer.TYPE)
            self.fail(AuthenticationError(reason))

    # The dialler

    def _answered(self, reply: HelloReply, frame: bytes) -> None:
        self._reply, self._reply_frame = reply, frame
        terms, link = self._terms, self._link
        refusal = terms.judge(link, reply)
        if refusal is not None:
            self.fail(LinkLostError(refusal))
            return
        provider = terms.provider
        try:
            self._authentication = provider.authenticate(self._handshake())
        except AuthenticationError as error:
            self.fail(error)
            return
        if not provider.proves:
            self._trust()
            return
        link.send_frame(AuthProof(self._authentication.proof).encode_frame(), AuthProof.TYPE)
        link.machine.challenge()

    def _judged(self, result: AuthResult) -> None:
        if result.status != Status.SUCCESS:
            self.fail(AuthenticationError("the peer refuses this node's proof: another key, or one that is not valid there"))
        elif not self._authentication.verify(result.proof):
            self.fail(AuthenticationError("the listener's proof is wrong: it does not hold the key"))
        else:
            self._trust()

    # Both

    def _handshake(self) -> Handshake:
        transport = self._link.transport
        return Handshake(
            dialled=self._link.dialled,
            hello=self._hello,
            hello_frame=self._hello_frame,
            reply=self._reply,
            reply_frame=self._reply_frame,
            certificate=peer_identity(transport),
            secure=self._link.secure,
            binding=channel_binding(transport),
            now=self._terms.wall(),
        )

    def _trust(self) -> None:
        """Speak version 0x02 from now on, unless another link to that node stays."""
        link = self._link
        refusal = self._terms.settle(link)
        if refusal is not None:
            self.fail(LinkLostError(refusal))
            return
        agreed = Capability(self._hello.capabilities & self._reply.capabilities)
        max_frame = min(self._hello.max_frame, self._reply.max_frame)
        try:
            link.establish(agreed, self._authentication, max_frame)
        except AuthenticationError as error:
            self.fail(error)
            return
        self._settle_outcome(None)

    def _settle_outcome(self, error: Exception | None) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return
        if error is None:
            outcome.callback(None)
        else:
            outcome.errback(error)


def speaks_ours(greeting: Hello | HelloReply) -> bool:
    """Say whether a peer understands the version that this node speaks."""
    return greeting.lowest_version <= HIGHEST_VERSION <= greeting.highest_version
