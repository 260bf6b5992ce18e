"""The life of a link: every state, every input."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
from automat import NoTransition

from hypercache.net.lifecycle import TRANSITIONS, LifeCycle, LinkState, document, life_cycle

INPUTS = ("dial", "open", "challenge", "trust", "close", "fail", "lose")
DISCONNECTED, CONNECTING, HANDSHAKING, AUTHENTICATING, CONNECTED, CLOSING, ERROR = LinkState

# By state and, in the order of INPUTS, by input: the letter of the state that follows (LETTERS), "." where nothing changes, and "-"
# where that cannot happen.
GRID = {
    DISCONNECTED: "C H - - . . .",
    CONNECTING: "- H - - D E D",
    HANDSHAKING: "- - A O L E D",
    AUTHENTICATING: "- - - O L E D",
    CONNECTED: "- - - - L E D",
    CLOSING: "- - - - . E D",
    ERROR: "- - - - . . D",
}
LETTERS = dict(zip("DCHAOLE", LinkState, strict=True))
EXPECTED = [(state, name, outcome) for state, row in GRID.items() for name, outcome in zip(INPUTS, row.split(), strict=True)]


class Told:
    """Notes what a link is told."""

    def __init__(self) -> None:
        self.states: list[LinkState] = []

    def entered(self, state: LinkState) -> None:
        self.states.append(state)


def ways() -> dict[LinkState, list[str]]:
    """Return for each state the shortest way to it."""
    found: dict[LinkState, list[str]] = {DISCONNECTED: []}
    waiting = deque([DISCONNECTED])
    while waiting:
        state = waiting.popleft()
        for name, target in TRANSITIONS[state].items():
            if target not in found:
                found[target] = [*found[state], name]
                waiting.append(target)
    return found


def brought_to(state: LinkState) -> tuple[LifeCycle, Told]:
    told = Told()
    machine = life_cycle(told)
    for name in ways()[state]:
        getattr(machine, name)()
    assert (told.states or [DISCONNECTED])[-1] is state
    told.states.clear()
    return machine, told


def test_the_states_are_the_seeds_with_its_numbers() -> None:
    names = ["DISCONNECTED", "CONNECTING", "HANDSHAKING", "AUTHENTICATING", "CONNECTED", "CLOSING", "ERROR"]
    assert [(state.name, int(state)) for state in LinkState] == [(name, number) for number, name in enumerate(names)]


def test_every_state_can_be_reached() -> None:
    assert set(ways()) == set(LinkState)


@pytest.mark.parametrize(("state", "name", "outcome"), EXPECTED, ids=lambda value: getattr(value, "name", value))
def test_every_input_in_every_state(state: LinkState, name: str, outcome: str) -> None:
    machine, told = brought_to(state)
    if outcome == "-":
        with pytest.raises(NoTransition):
            getattr(machine, name)()
        assert told.states == []
        # It stands where it stood.
        machine.lose()
        assert told.states == ([] if state is DISCONNECTED else [DISCONNECTED])
    else:
        getattr(machine, name)()
        assert told.states == ([] if outcome == "." else [LETTERS[outcome]])


def test_all_49_are_tested() -> None:
    assert len(EXPECTED) == len(LinkState) * len(INPUTS) == 49
    assert {name for inputs in TRANSITIONS.values() for name in inputs} == set(INPUTS)


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("ending", ["close", "fail", "lose"])
def test_a_link_may_end_at_any_time_and_its_end_may_be_said_twice(state: LinkState, ending: str) -> None:
    machine, told = brought_to(state)
    getattr(machine, ending)()
    getattr(machine, ending)()
    assert len(told.states) <= 1
    machine.lose()
    machine.lose()
    machine.dial()
    assert told.states[-1] is CONNECTING


def test_what_happens_while_a_state_is_entered_comes_behind_it() -> None:
    states: list[LinkState] = []

    class Closing:
        def entered(self, state: LinkState) -> None:
            if state is HANDSHAKING:
                machine.fail()
            states.append(state)

    machine = life_cycle(Closing())
    machine.open()
    assert states == [HANDSHAKING, ERROR]


def test_the_documentation_shows_the_machine() -> None:
    text = (Path(__file__).parents[2] / "docs" / "links.md").read_text()
    assert f"```mermaid\n{document()}\n```" in text
    shown = {line.strip() for line in document().splitlines()[2:]}
    changes = {f"{state.name} --> {target.name}: {name}" for state, row in TRANSITIONS.items() for name, target in row.items()}
    assert shown == {line for line in changes if line.split()[0] != line.split()[2].rstrip(":")}
