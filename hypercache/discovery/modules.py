"""The modules of the plug-in package: found, imported, and named where that fails.

The rules are those of `twisted.plugin`: a module anywhere on the package's path, and in it the objects that provide `IPlugin`. Its
``getPlugins`` is not used, for two reasons: it only logs what cannot be imported, and it believes a ``dropin.cache`` by the age of
files, which installers that keep the time of a file defeat, in a directory that is often not writable. A node needs every plug-in
at its start, so there is nothing that a cache could save it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import traceback
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import ModuleType

_PATH_FILE: Final = ".pth"


class PluginModule(msgspec.Struct, frozen=True):
    """A module of the plug-in package.

    Attributes:
        name: its full name.
        file: where it lies.
        distribution, version: what it was installed with; empty where nothing says so.
        namespace: what it holds; None where it was not imported.
        reason: why not; empty where it was not to be.
    """

    name: str
    file: str
    distribution: str = ""
    version: str = ""
    namespace: dict[str, Any] | None = None
    reason: str = ""


class _Place(msgspec.Struct, frozen=True):
    """Where a module lies: the directory of its plug-in package, and the file."""

    directory: str
    file: str


def plugin_modules(package: ModuleType, disabled: Collection[str]) -> list[PluginModule]:
    """Import the modules of a package.

    Args:
        package: where plug-ins are.
        disabled: the modules, by their names within the package, that are not to be imported.

    Returns:
        All modules by name; of those with one name the one that Python imports comes first.
    """
    found: list[PluginModule] = []
    places = _places(package)
    owners = _Owners(package.__name__) if places else None
    for short_name, candidates in sorted(places.items()):
        name = f"{package.__name__}.{short_name}"
        first, *others = candidates
        for place in candidates:
            distribution, version = owners.of(place) if owners is not None else ("", "")
            module = PluginModule(name, place.file, distribution, version)
            if place in others:
                module = msgspec.structs.replace(module, reason=f"{first.file} has the same name and comes first")
            elif short_name not in disabled:
                module = _imported(module)
            found.append(module)
    return found


def _places(package: ModuleType) -> dict[str, list[_Place]]:
    """Return where the modules of a package lie, by their names within it."""
    places: dict[str, list[_Place]] = {}
    seen: set[str] = set()
    for directory in package.__path__:
        resolved = os.path.realpath(directory)
        if resolved in seen:
            continue
        seen.add(resolved)
        for finder, short_name, _ in pkgutil.iter_modules([directory]):
            spec = finder.find_spec(f"{package.__name__}.{short_name}", None)
            file = spec.origin if spec is not None and spec.origin is not None else directory
            places.setdefault(short_name, []).append(_Place(directory, file))
    return places


def _imported(module: PluginModule) -> PluginModule:
    try:
        namespace = vars(importlib.import_module(module.name))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plug-in raises is its own fault, and no other's
        return msgspec.structs.replace(module, reason=f"it cannot be imported: {_explained(error)}")
    return msgspec.structs.replace(module, namespace=namespace)


def _explained(error: BaseException) -> str:
    """Return what happened, and at which line."""
    text = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) or not frames:
        return text
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


class _Owners:
    """Which distribution a module of a package was installed with.

    Args:
        package: the package's name.
    """

    def __init__(self, package: str) -> None:
        self._inside = package.replace(".", "/") + "/"
        self._depth = len(package.split("."))
        self._files: dict[str, Distribution] = {}
        self._roots: dict[str, Distribution] = {}
        for distribution in distributions():
            # Most distributions have nothing to do with it, and to parse all their lists takes a tenth of a second.
            record = distribution.read_text("RECORD") or ""
            if self._inside in record or _PATH_FILE in record:
                self._note(distribution)

    def of(self, place: _Place) -> tuple[str, str]:
        """Return name and version of a module's distribution; empty where none is known."""
        owner = self._files.get(os.path.realpath(place.file))
        if owner is None:
            root = Path(os.path.realpath(place.directory)).parents[self._depth - 1]
            owner = self._roots.get(str(root))
        return (owner.name, owner.version) if owner is not None else ("", "")

    def _note(self, distribution: Distribution) -> None:
        for file in distribution.files or ():
            if file.as_posix().startswith(self._inside):
                self._files.setdefault(os.path.realpath(str(distribution.locate_file(file))), distribution)
            elif file.suffix == _PATH_FILE:
                # An editable install: its files stay where they are, and a line of this one names the place.
                for root in _lines(Path(str(distribution.locate_file(file)))):
                    self._roots.setdefault(os.path.realpath(root), distribution)


def _lines(path: Path) -> Iterable[str]:
    """Return the directories that a ``.pth`` file adds."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "import ", "import\t"))]
