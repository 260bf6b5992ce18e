"""``hypercache plugins``, and the commands that show frames of plug-ins."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

from hypercache.cli import main
from tests.plugins.test_discovery import messages, policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_all_is_well_without_plugins(plugin_module: Callable[..., Path]) -> None:
    result = CliRunner().invoke(main, ["plugins"])
    assert (result.exit_code, result.output) == (0, "There are no plug-ins.\n")
    result = CliRunner().invoke(main, ["plugins", "--json"])
    assert json.loads(result.output) == {"found": [], "disabled": [], "failed": []}


def test_what_was_found_is_listed_with_where_it_comes_from(plugin_module: Callable[..., Path]) -> None:
    file = plugin_module("good", policy("biggest"))
    result = CliRunner().invoke(main, ["plugins"])
    assert (result.exit_code, result.output) == (0, f"used  biggest  IEvictionPolicy\n    hypercache.plugins.good  {file}\n")


def test_what_failed_is_listed_with_the_reason_and_the_exit_code_says_so(plugin_module: Callable[..., Path]) -> None:
    plugin_module("good", policy("biggest"))
    file = plugin_module("bad", policy("lru"))
    result = CliRunner().invoke(main, ["plugins"])
    assert result.exit_code == 1
    assert (
        f"FAILED  lru  IEvictionPolicy\n    hypercache.plugins.bad  {file}\n    the name 'lru' is HyperCache's own\n"
        in result.output
    )
    result = CliRunner().invoke(main, ["plugins", "--json", "--set", "plugins.strict=true"])
    assert result.exit_code == 1
    listed = json.loads(result.output)
    assert [each["name"] for each in listed["found"]] == ["biggest"]
    assert listed["failed"] == [
        {
            "name": "lru",
            "interface": "IEvictionPolicy",
            "module": "hypercache.plugins.bad",
            "file": str(file),
            "distribution": "",
            "version": "",
            "reason": "the name 'lru' is HyperCache's own",
        }
    ]


def test_what_the_settings_disable_is_listed_so(plugin_module: Callable[..., Path], tmp_path: Path) -> None:
    plugin_module("bad", "1 / 0")
    plugin_module("good", policy("biggest"))
    config = tmp_path / "node.toml"
    config.write_text('[plugins]\ndisabled = ["bad"]\n')
    result = CliRunner().invoke(main, ["plugins", "--config", str(config)])
    assert result.exit_code == 0
    assert "disabled  bad\n" in result.output
    result = CliRunner().invoke(main, ["plugins", "--set", "plugins.nonsense=1"])
    assert result.exit_code == 1
    assert "unknown setting plugins.nonsense" in result.output


def test_frames_of_plugins_are_encoded_inspected_and_described(plugin_module: Callable[..., Path]) -> None:
    plugin_module("good", messages("Weather", 0x90))
    row = '{"name": "Weather", "fields": {"x": 7}}'
    encoded = CliRunner().invoke(main, ["encode"], input=row)
    assert encoded.exit_code == 0
    inspected = CliRunner().invoke(main, ["inspect", "--json"], input=encoded.stdout_bytes)
    assert inspected.exit_code == 0
    shown = json.loads(inspected.output)
    assert (shown["type"], shown["name"], shown["fields"]) == (0x90, "Weather", {"x": 7})
    described = json.loads(CliRunner().invoke(main, ["schema", "--json"]).output)
    assert described["messages"][-2] == {"type": 0x90, "name": "Weather", "parts": [{"kind": "u8", "name": "x"}]}


def test_inspect_names_what_it_could_not_use_apart_from_its_rows(plugin_module: Callable[..., Path]) -> None:
    plugin_module("bad", "1 / 0")
    row = '{"name": "Heartbeat", "fields": {"node_id": 1, "timestamp": 2, "load": 3}}'
    encoded = CliRunner().invoke(main, ["encode"], input=row)
    inspected = CliRunner().invoke(main, ["inspect", "--json"], input=encoded.stdout_bytes)
    assert inspected.exit_code == 0
    assert json.loads(inspected.stdout)["name"] == "Heartbeat"
    assert "the plug-in bad " in inspected.stderr
    assert "ZeroDivisionError" in inspected.stderr
