"""The zope interfaces that plug-ins implement."""

from __future__ import annotations

from zope.interface import Attribute, Interface


class IMessageHandler(Interface):
    """Handles one type of message of the cluster protocol."""

    message_type = Attribute("int: the type byte that this handler takes.")
    requires_auth = Attribute("bool: whether the sender must have authenticated.")

    def handle(context, message):  # noqa: N805 - an interface's methods have no self
        """Handle one message.

        Args:
            context: a `hypercache.net.peer.PeerContext`: who sent it, and what came with it.
            message: the decoded message.

        Returns:
            The answer, a Deferred that fires with it, or None for no answer. What is raised becomes an error 0x0007 that tells the
            peer nothing of its cause.
        """


class IMessageHandlerFactory(Interface):
    """What a plug-in module exposes to add message types and their handlers to a node."""

    name = Attribute("str: the plug-in's name.")
    messages = Attribute("tuple of `hypercache.wire.Message` classes: what is added to the schema; types 0x80 to 0xEF.")

    def handlers(services):  # noqa: N805
        """Return the `IMessageHandler`s of one node.

        Args:
            services: a `hypercache.net.services.Services`: what handlers may use of the node.
        """


class IRESPCommand(Interface):
    """A command for Redis clients; `hypercache.resp.table.Command` is one."""

    name = Attribute("str: in lower case; a name with a dot, such as ``echo.reverse``, cannot meet one of Redis'.")
    arity = Attribute("int: how many arguments, the name included; negative: at least that many.")
    flags = Attribute("frozenset of str: Redis' names: readonly, write, denyoom, fast …")
    keys = Attribute("tuple of three int: first key, last key, step; zeros for none.")
    group = Attribute("str: the family, as COMMAND DOCS names it.")
    since = Attribute("str: the version that brought it.")
    summary = Attribute("str: one line.")

    def function(session, arguments):  # noqa: N805
        """Run the command.

        Args:
            session: the connection's `hypercache.resp.Session`; ``session.store`` is the selected store.
            arguments: list of bytes, the name first.

        Returns:
            The encoded reply (`hypercache.resp.replies`).

        Raises:
            CommandError: it carries the error line.
        """


class IAuthProvider(Interface):
    """Proves to peers who this node is, and judges whether they are who they say; one a node."""

    name = Attribute("str: the name in the configuration (security.auth).")
    required = Attribute("bool: whether a peer must authenticate; base peers are let in only where it need not.")
    proves = Attribute("bool: whether AuthProof and AuthResult are exchanged; without, Hello and the certificate decide alone.")

    def key_id():
        """Return the id of the key to use now, for Hello; empty where there are no keys."""

    def authenticate(handshake):  # noqa: N805
        """Judge both Hellos, and prepare the proofs of one link.

        Args:
            handshake: a `hypercache.auth.handshake.Handshake`.

        Returns:
            An `IAuthentication`.

        Raises:
            AuthenticationError: the peer cannot be who it says. The text is for the log; the peer hears 0x0005 and nothing more.
        """


class IAuthProviderFactory(Interface):
    """What a plug-in module exposes to add an auth provider."""

    name = Attribute("str: the name in the configuration (security.auth).")

    def provider(settings, node_id, wall):  # noqa: N805
        """Return the `IAuthProvider` of one node.

        Args:
            settings: the node's `hypercache.config.Settings`.
            node_id: its id.
            wall: returns Unix seconds.

        Raises:
            ConfigurationError: the settings do not suffice; the text says what to do.
        """


class IAuthentication(Interface):
    """What an `IAuthProvider` made of one link."""

    proof = Attribute("bytes: this side's proof, 32 bytes; empty where none is exchanged.")
    keys = Attribute("None, or a tuple (bytes to sign what is sent with, bytes to verify what is received with).")
    expires = Attribute(
        "float: Unix seconds at which the link must end; infinity for never. Shortly before, who dialled replaces it if key_id() "
        "has changed by then."
    )

    def verify(proof):  # noqa: N805
        """Say, in constant time, whether the peer's 32-byte proof is right."""


class IFrameLayerFactory(Interface):
    """Makes the frame layer of each link: signing, compression and rate limiting are made by such factories."""

    name = Attribute("str: the layer's name.")
    order = Attribute("int: its place; the lowest is next to the socket. Signing 10, compression 20, rate limiting 90.")
    capability = Attribute("int: the bit of Hello that both sides must have; 0 where the peer need not know of it.")
    base_peers = Attribute(
        "bool: whether links of base peers have it too. There it sees what is received after the peer's first read; answers to a "
        "base peer are version 0x01, and pass no layer."
    )

    def layer(link):  # noqa: N805
        """Return the `IFrameLayer` of a link, or None where it needs none.

        Args:
            link: a `hypercache.layers.stack.LinkView`: what layers may know of the link, and do to it.
        """


class IFrameLayer(Interface):
    """One link's share of a layer. It has the same methods towards both sides; a frame is a tuple (message type, payload).

    The payload of an extended link is extension and body (wire.md, section 3), that of a base peer the body alone.
    """

    above = Attribute("The next layer away from the socket; set before the first frame.")
    below = Attribute("The next layer towards the socket; set before the first frame.")

    def send(frames):  # noqa: N805
        """Take the frames of one write, in order, and give what becomes of them to ``below.send``."""

    def receive(frames):  # noqa: N805
        """Take the frames of one read, in order, and give what becomes of them to ``above.receive``.

        Raises:
            WireError: the link must close; the frames before the faulty one have been handed on.
        """

    def close():
        """The link is gone: cancel what was scheduled."""


class IEvictionPolicy(Interface):
    """Chooses which key goes when memory is full; `hypercache.store.eviction` has the built-in ones."""

    name = Attribute("str: the name in the configuration.")
    evicts = Attribute("bool: False for a policy under which writes are refused instead.")
    volatile_only = Attribute("bool: whether only keys with a deadline may go.")
    counts_uses = Attribute("bool: whether the store must keep use counters.")

    def score(candidate):  # noqa: N805
        """Return how much a `hypercache.store.Candidate` should go; of a sample the highest does."""


class IReplicator(Interface):
    """Keeps the members of a cluster level."""

    def link_up(link):  # noqa: N805
        """A member can be reached: tell it what it missed, then every change.

        Args:
            link: its `hypercache.net.link.PeerLink`; what it said of itself is its ``greeting``, None of a base peer.
        """

    def link_down(link):  # noqa: N805
        """The link is lost."""

    def link_moved(old, new):  # noqa: N805
        """Another link to the same member, which has not restarted, takes the old one's place: nothing was missed."""

    def poke():
        """Something may have been written: send it soon."""

    def flush():
        """Return a Deferred that fires when every member that can be reached has acknowledged all there was."""
