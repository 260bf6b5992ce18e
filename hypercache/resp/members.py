"""HYPERCACHE.NODE: who is a member of the cluster, and who is one no longer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from hypercache.errors import CommandError
from hypercache.resp.replies import array, bulk, help_lines, integer, mapping, text
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.contracts import ClusterMembers
    from hypercache.resp.session import Session

_GROUP: Final = "server"
_ADMIN: Final = "admin noscript loading stale"
_ID_END: Final = 1 << 64


def _members(session: Session) -> ClusterMembers:
    members = session.server.members
    if members is None:
        raise CommandError("ERR this node takes no part in the Raft group, which knows the members")
    return members


def _node_id(argument: bytes) -> int:
    if not (argument.isdigit() and len(argument) <= len(str(_ID_END)) and 0 < int(argument) < _ID_END):
        raise CommandError("ERR a node's id is a number; HYPERCACHE.NODE LIST shows them")
    return int(argument)


@command("hypercache.node|list", arity=2, flags="loading stale", group=_GROUP, since="7.0.0", summary="Lists the members.")
def list_(session: Session, args: list[bytes]) -> bytes:
    """Answer who is a member, as this node knows it."""
    return array(
        [
            mapping(
                session.resp,
                [
                    (bulk(b"id"), text(str(facts.node_id))),
                    (bulk(b"name"), text(facts.name)),
                    (bulk(b"state"), text(facts.state)),
                    (bulk(b"role"), text(facts.role)),
                    (bulk(b"address"), text(facts.address)),
                    (bulk(b"client-address"), text(facts.client_address)),
                    (bulk(b"self"), integer(int(facts.is_self))),
                ],
            )
            for facts in _members(session).all()
        ]
    )


@command("hypercache.node|remove", arity=3, flags=_ADMIN, group=_GROUP, since="7.0.0", summary="Lets a member go for good.")
def remove(session: Session, args: list[bytes]) -> None:
    """Have a member leave the cluster for good, dead or alive; answered when it is gone."""
    session.later = partial(_members(session).remove, _node_id(args[2]))


@command("hypercache.node|leave", arity=2, flags=_ADMIN, group=_GROUP, since="7.0.0", summary="Has this node leave for good.")
def leave(session: Session, args: list[bytes]) -> None:
    """Have this node leave the cluster for good; it then stops."""
    session.later = partial(_members(session).remove, 0)


@command("hypercache.node|transfer", arity=3, flags=_ADMIN, group=_GROUP, since="7.0.0", summary="Hands the leadership over.")
def transfer(session: Session, args: list[bytes]) -> None:
    """Hand the leadership to another voter; the leader alone can."""
    session.later = partial(_members(session).transfer, _node_id(args[2]))


@command("hypercache.node|help", arity=2, flags="loading stale", group=_GROUP, since="7.0.0", summary="Returns helpful text.")
def help_(session: Session, args: list[bytes]) -> bytes:
    """Answer the subcommands."""
    return help_lines(
        "HYPERCACHE.NODE",
        (
            "LIST",
            "    Return the members: id, name, state, role, addresses.",
            "REMOVE <id>",
            "    Have a member leave the cluster for good, dead or alive.",
            "LEAVE",
            "    Have this node leave the cluster for good, and stop.",
            "TRANSFER <id>",
            "    Hand the leadership to another voter; to be asked of the leader.",
        ),
    )


@command(
    "hypercache.node",
    arity=-2,
    flags=_ADMIN,
    group=_GROUP,
    since="7.0.0",
    summary="A container for commands about the members.",
    subcommands=(list_, remove, leave, transfer, help_),
)
def node(session: Session, args: list[bytes]) -> bytes:
    """Never runs: a subcommand does."""
    raise CommandError("ERR wrong number of arguments for 'hypercache.node' command")
