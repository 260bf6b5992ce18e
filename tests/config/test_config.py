"""The settings: defaults, files, overrides, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from twisted.python.usage import UsageError

from hypercache.cli import main
from hypercache.config import Settings, as_toml, load_settings, setting_names
from hypercache.errors import ConfigurationError
from hypercache.net.endpoints import endpoint_string, is_loopback
from hypercache.roles.exposure import check_exposure
from hypercache.tap import NodeOptions

EXAMPLE = Path(__file__).parents[2] / "etc" / "node.toml"


def test_the_example_lists_every_setting_with_its_default() -> None:
    text = EXAMPLE.read_text()
    uncommented = "\n".join(line[1:] if line.startswith("#") and " = " in line else line for line in text.splitlines())
    assert load_settings(uncommented) == Settings()
    for name in setting_names():
        assert f"#{name.partition('.')[2]} = " in text, name
    assert load_settings(text) == Settings()


def test_settings_as_toml_load_back_to_the_same() -> None:
    settings = load_settings('[cluster]\njoin = ["a:1", "b:2"]\n[memory]\nmaxmemory = "64mb"\n[node]\nname = "x\\"y"\n')
    assert settings.memory.maxmemory == 64 << 20
    assert load_settings(as_toml(settings)) == settings


def test_overrides_win_over_the_file_and_are_typed_by_the_schema() -> None:
    settings = load_settings("[resp]\ndatabases = 4\n", ["resp.databases=8", "security.insecure=true", "cluster.join=a:1,b:2"])
    assert settings.resp.databases == 8
    assert settings.security.insecure is True
    assert settings.cluster.join == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[memory]\nmaxmemry = 1\n", "did you mean memory.maxmemory?"),
        ("[rsep]\nlisten = 1\n", "did you mean resp.listen?"),
        ("[resp]\ndatabases = 'x'\n", "must be a whole number"),
        ("[resp]\ndatabases = true\n", "must be a whole number"),
        ("[resp]\ndatabases = 0\n", "must be at least 1"),
        ("[memory]\nmaxmemory = '64 parsecs'\n", "must be a number of bytes"),
        ("[security]\ninsecure = 'yes'\n", "must be true or false"),
        ("[cluster]\njoin = 'a:1'\n", "must be a list of texts"),
        ("[node", "is no TOML"),
        ("listen = 5\n", "stands outside of any section"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_wanted(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(text)
    assert said in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings("[resp]\ndatabases = 0\nfoo = 1\n", ["nonsense"])
    assert str(caught.value).count(";") >= 2


def test_places_to_listen() -> None:
    assert endpoint_string("6379", "x") == "tcp:6379:interface=127.0.0.1"
    assert endpoint_string("off", "x") is None
    assert endpoint_string("[::1]:5", "x") == "tcp6:5:interface=\\:\\:1"
    for wrong in ("99999", "nonsense", "host:port", "1.2.3.4"):
        with pytest.raises(ConfigurationError):
            endpoint_string(wrong, "x")
    loopback = ("tcp:1:interface=127.0.0.1", "tcp6:1:interface=\\:\\:1", "unix:/tmp/x", "tcp:1:interface=localhost")
    assert all(map(is_loopback, loopback))
    assert not any(map(is_loopback, ("tcp:1", "tcp:1:interface=0.0.0.0", "tcp6:1:interface=\\:\\:", "tcp:1:interface=example")))


def test_reaching_beyond_loopback_without_protection_is_refused_with_the_way_on() -> None:
    for overrides in (["resp.listen=0.0.0.0:1"], ["cluster.listen=tcp:1"], ["admin.listen=0.0.0.0:1"]):
        with pytest.raises(ConfigurationError, match=r"security\.insecure = true"):
            check_exposure(load_settings("", overrides))
        check_exposure(load_settings("", [*overrides, "security.insecure=true"]))
    for protected in (
        ["resp.listen=0.0.0.0:1", "resp.password=secret"],
        ["resp.listen=0.0.0.0:1", "resp_tls.certificate=a.pem"],
        ["cluster.listen=tcp:1", "security.auth=hmac"],
        ["cluster.listen=tcp:1", "cluster_tls.certificate=a.pem"],
        ["admin.listen=0.0.0.0:1", "admin_tls.certificate=a.pem"],
    ):
        check_exposure(load_settings("", protected))


def test_the_options_of_a_role() -> None:
    options = NodeOptions()
    options.parseOptions(["--resp", "1", "--join", "a:1", "--join", "b:2", "--set", "memory.samples=9", "--name", "n"])
    settings = options["settings"]
    assert (settings.resp.listen, settings.cluster.join, settings.memory.samples, settings.node.name) == (
        "1",
        ("a:1", "b:2"),
        9,
        "n",
    )
    with pytest.raises(UsageError, match=r"did you mean memory\.samples"):
        NodeOptions().parseOptions(["--set", "memory.sample=9"])
    with pytest.raises(UsageError, match="cannot be read"):
        NodeOptions().parseOptions(["--config", "/nonexistent"])


def test_config_validate_and_show(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[resp]\nfoo = 1\ndatabases = 0\n")
    runner = CliRunner()
    refused = runner.invoke(main, ["config", "validate", str(file)])
    assert refused.exit_code == 1
    assert "resp.foo" in refused.output
    assert "resp.databases" in refused.output
    file.write_text("[resp]\ndatabases = 3\n")
    assert runner.invoke(main, ["config", "validate", str(file)]).exit_code == 0
    shown = runner.invoke(main, ["config", "show", "--config", str(file), "--set", "node.name=x"])
    assert load_settings(shown.output).resp.databases == 3
    as_json = msgspec.json.decode(runner.invoke(main, ["config", "show", "--json"]).output)
    assert as_json["resp"]["databases"] == 16


def test_more_voters_than_a_group_can_have_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"raft\.voters.*at most 7"):
        load_settings(overrides=["raft.voters=8"])
