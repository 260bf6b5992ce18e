"""ECHO.REVERSE: a command for Redis clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercache.resp.replies import bulk, nil
from hypercache.resp.table import command

if TYPE_CHECKING:
    from hypercache.resp.session import Session


@command(
    "echo.reverse",
    arity=2,
    flags="readonly fast",
    keys=(1, 1, 1),
    group="echo",
    since="0.1.0",
    summary="Returns the value of a key backwards.",
)
def echo_reverse(session: Session, arguments: list[bytes]) -> bytes:
    """Answer the value backwards, nil where there is none."""
    value = session.store.get(arguments[1])
    return nil(session.resp) if value is None else bulk(value[::-1])
