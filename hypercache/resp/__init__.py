"""The client's protocol: parsing, commands, replies."""

from hypercache.resp import bitfield, bits, clients, connection, expiry, keys, lcs, members, named_stores, server, strings, tracing
from hypercache.resp.context import ServerContext
from hypercache.resp.engine import Engine
from hypercache.resp.parser import RequestParser
from hypercache.resp.session import Session
from hypercache.resp.table import CommandTable

__all__ = ["CommandTable", "Engine", "RequestParser", "ServerContext", "Session", "built_in_commands"]


def built_in_commands() -> CommandTable:
    """Return a table of all commands that come with HyperCache."""
    return CommandTable.of(connection, clients, server, keys, expiry, strings, bits, bitfield, lcs, tracing, named_stores, members)
