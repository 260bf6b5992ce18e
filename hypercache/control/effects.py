"""What a command does to the control plane."""

from __future__ import annotations

import msgspec

from hypercache.control.commands import Code
from hypercache.control.state import ControlState


class Effect(msgspec.Struct, frozen=True):
    """What came of a command.

    Attributes:
        state: the state behind it; the same one where nothing changed.
        code: what became of it.
        text: why it was refused.
        forget: the clients whose answers are forgotten (`hypercache.raft.sessions.Sessions.forget`).
    """

    state: ControlState
    code: Code = Code.OK
    text: str = ""
    forget: tuple[int, ...] = ()


def refused(state: ControlState, code: Code, text: str) -> Effect:
    """Return a refusal, which changes nothing."""
    return Effect(state, code, text)
