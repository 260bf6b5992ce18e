"""Plug-in packages of a test's own, and the example distribution."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hypercache.plugins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "hypercache-echo"

# The package's path is made already: the example can be imported from here on, and is no plug-in of this process.
sys.path.append(str(EXAMPLE / "src"))

HEAD = """
from typing import ClassVar
from twisted.plugin import IPlugin
from zope.interface import implementer
from hypercache.interfaces import *
from hypercache.interfaces import IAuthProviderFactory, IEvictionPolicy, IFrameLayerFactory, IMessageHandler, IMessageHandlerFactory
from hypercache.resp.replies import bulk
from hypercache.resp.table import command
from hypercache.wire import Message
from hypercache.wire.kinds import *
"""


@pytest.fixture
def plugin_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that puts a module into a directory of plug-ins, which are then the only ones there are."""
    monkeypatch.setattr(hypercache.plugins, "__path__", [])

    def add(name: str, text: str, directory: str = "first") -> Path:
        path = tmp_path / directory / "hypercache" / "plugins"
        if str(path) not in hypercache.plugins.__path__:
            path.mkdir(parents=True)
            hypercache.plugins.__path__.append(str(path))
        file = path / f"{name}.py"
        file.write_text(HEAD + textwrap.dedent(text))
        importlib.invalidate_caches()
        return file

    yield add
    forget_plugins()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the plug-ins of the example, and no others."""
    monkeypatch.setattr(hypercache.plugins, "__path__", [str(EXAMPLE / "src" / "hypercache" / "plugins")])
    yield
    forget_plugins()


def forget_plugins() -> None:
    for name in [name for name in sys.modules if name.startswith("hypercache.plugins.")]:
        del sys.modules[name]
        delattr(hypercache.plugins, name.rpartition(".")[2])
