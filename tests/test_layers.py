"""Who may import whom (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"errors", "limits", "config"},
    {"wire", "raft", "store", "replication", "resp", "control"},
    {"interfaces"},
    {"persist", "auth", "layers", "tracing", "handlers", "net", "consensus", "cluster", "admin"},
    {"plugins", "discovery"},
    {"roles"},
    {"testing"},
    {"tap", "cli"},
)
PURE = LAYERS[1]
IMPURE_MODULES = {"twisted", "zope", "time", "random", "socket", "os", "OpenSSL", "pathlib", "threading", "asyncio"}
MODULES = sorted((ROOT / "hypercache").rglob("*.py"))


def layer_of(package: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if package in packages)


def imports(path: Path) -> list[str]:
    """Return the modules that a file imports when it runs: not those for the type checker alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_upward_only_and_pure_packages_stay_pure(path: Path) -> None:
    parts = path.relative_to(ROOT / "hypercache").with_suffix("").parts
    package = parts[0]
    if package == "__init__":
        return
    for module in imports(path):
        names = module.split(".")
        if package in PURE:
            assert names[0] not in IMPURE_MODULES, f"a pure package imports {module}"
        if names[0] != "hypercache" or len(names) < 2:
            continue
        target = names[1]
        assert layer_of(target) <= layer_of(package), f"{package} imports {module}, which is above it"
        if package in PURE and target in PURE and target != package:
            assert (package, target) in {("replication", "wire"), ("raft", "wire")}, f"{package} imports {module}"
