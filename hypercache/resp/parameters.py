"""The settings that CONFIG GET and CONFIG SET reach at run time, by Redis' names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from hypercache.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MEMORY: Final = re.compile(r"([0-9]{0,18})([a-z]*)")
_UNITS: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}


class Parameter(msgspec.Struct, frozen=True):
    """One setting.

    Attributes:
        name: as Redis has it.
        read: returns the value as text.
        write: takes the new value as text, None where it cannot be changed at run time. Raises ValueError with the reason.
    """

    name: str
    read: Callable[[], str]
    write: Callable[[str], None] | None = None


class Parameters:
    """The settings of a node."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._by_name = {parameter.name: parameter for parameter in parameters}

    def __iter__(self) -> object:
        return iter(self._by_name.values())

    def all(self) -> Mapping[str, Parameter]:
        """Return the settings by name."""
        return self._by_name

    def set_all(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Change several settings, all or none.

        Raises:
            CommandError: a name is unknown, doubled or fixed, or a value is refused; nothing has changed then.
        """
        chosen: list[tuple[Parameter, str]] = []
        for name, value in pairs:
            parameter = self._by_name.get(name.lower())
            if parameter is None:
                raise CommandError(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            if any(parameter is other for other, _ in chosen):
                raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - duplicate parameter")
            if parameter.write is None:
                raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config")
            chosen.append((parameter, value))
        before = [(parameter, parameter.read()) for parameter, _ in chosen]
        for done, (parameter, value) in enumerate(chosen):
            assert parameter.write is not None
            try:
                parameter.write(value)
            except ValueError as refusal:
                for undone, old in before[:done]:
                    assert undone.write is not None
                    undone.write(old)
                raise CommandError(f"ERR CONFIG SET failed (possibly related to argument '{parameter.name}') - {refusal}") from None


def parse_memory(value: str) -> int:
    """Return a number of bytes: ``100``, ``100mb``, ``1gb``, ``5k`` as Redis reads them; nothing at all is 0.

    Raises:
        ValueError: it is no such text.
    """
    match = _MEMORY.fullmatch(value.lower())
    if match is None or match[2] not in _UNITS or (value and not match[1]):
        raise ValueError("argument must be a memory value")
    return int(match[1] or 0) * _UNITS[match[2]]


def parse_integer(value: str, lowest: int, highest: int) -> int:
    """Return an integer within bounds.

    Raises:
        ValueError: it is none, or out of bounds.
    """
    if not _INTEGER.fullmatch(value):
        raise ValueError("argument couldn't be parsed into an integer")
    number = int(value)
    if not lowest <= number <= highest:
        raise ValueError(f"argument must be between {lowest} and {highest} inclusive")
    return number
