"""The life of a link as a state machine (the seed's connection states; docs/links.md shows it).

The machine says what may follow what. A link has one, tells it what happens, and hears of each state that it enters.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

from automat import TypeMachineBuilder


class LinkState(IntEnum):
    """The states, numbered as in the seed."""

    DISCONNECTED = 0
    CONNECTING = 1
    HANDSHAKING = 2
    AUTHENTICATING = 3
    CONNECTED = 4
    CLOSING = 5
    ERROR = 6


class LifeCycle(Protocol):
    """What can happen to a link."""

    def dial(self) -> None:
        """This side opens a connection."""

    def open(self) -> None:
        """The connection is there: dialled, or accepted."""

    def challenge(self) -> None:
        """Both Hellos are exchanged, and proofs must follow."""

    def trust(self) -> None:
        """The peer is who it says, or is a base peer where those are let in."""

    def close(self) -> None:
        """One side ends the link in good order."""

    def fail(self) -> None:
        """The link cannot go on."""

    def lose(self) -> None:
        """The connection is gone, or could not be made."""


class Entered(Protocol):
    """Who is told of each state that a link enters."""

    def entered(self, state: LinkState) -> None:
        """Take note of the new state.

        What happens to the link in here is put to the machine only when this has returned.
        """
        ...


_D, _C, _H, _A, _O, _L, _E = LinkState

TRANSITIONS: Final[dict[LinkState, dict[str, LinkState]]] = {
    _D: {"dial": _C, "open": _H, "close": _D, "fail": _D, "lose": _D},
    _C: {"open": _H, "close": _D, "fail": _E, "lose": _D},
    _H: {"challenge": _A, "trust": _O, "close": _L, "fail": _E, "lose": _D},
    _A: {"trust": _O, "close": _L, "fail": _E, "lose": _D},
    _O: {"close": _L, "fail": _E, "lose": _D},
    _L: {"close": _L, "fail": _E, "lose": _D},
    _E: {"close": _E, "fail": _E, "lose": _D},
}
"""The state that each input leads to. Ending is allowed at any time, and a second end changes nothing; whoever is told is told of
changes alone. An input that is not listed is a mistake of ours, whatever the peer sent, and raises `automat.NoTransition`."""


class _Core:
    """What the machine works on: who is told."""

    __slots__ = ("entered",)

    def __init__(self, entered: Callable[[LinkState], None]) -> None:
        self.entered = entered


def _build() -> Callable[[_Core], LifeCycle]:
    builder = TypeMachineBuilder(LifeCycle, _Core)
    # The first state that a builder makes is where its machines begin.
    states = {state: builder.state(state.name) for state in LinkState}
    for state, inputs in TRANSITIONS.items():
        for name, target in inputs.items():
            declared = states[state].upon(getattr(LifeCycle, name))
            if target is state:
                declared.loop().returns(None)
            else:
                declared.to(states[target])(_entering(target))
    return builder.build()


def _entering(state: LinkState) -> Callable[[LifeCycle, _Core], None]:
    def enter(machine: LifeCycle, core: _Core) -> None:
        core.entered(state)

    return enter


_machine: Final = _build()


def life_cycle(link: Entered) -> LifeCycle:
    """Return the machine of one link, in state DISCONNECTED.

    Args:
        link: is told of each state that follows.
    """
    return _machine(_Core(link.entered))


def document() -> str:
    """Return the machine as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> DISCONNECTED"]
    for state, inputs in TRANSITIONS.items():
        lines += [f"    {state.name} --> {target.name}: {name}" for name, target in inputs.items() if target is not state]
    return "\n".join(lines)
