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
    """What a plug-in module exposes to add handlers to a node."""

    name = Attribute("str: the plug-in's name.")

    def handlers(services):  # noqa: N805
        """Return the `IMessageHandler`s, given the node's services."""


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

    def link_up(link, greeting=None):  # noqa: N805
        """A member can be reached: tell it what it missed, then every change.

        Args:
            link: its `hypercache.net.peer.PeerLink`.
            greeting: the Hello or HelloReply that came over it; None of a base peer.
        """

    def link_down(link):  # noqa: N805
        """The link is lost, or another one replaces it."""

    def poke():
        """Something may have been written: send it soon."""

    def flush():
        """Return a Deferred that fires when every member that can be reached has acknowledged all there was."""
