from __future__ import annotations

import re
import stat
import time
import tomllib
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from hypercache.auth.credentials import NodeCredential, key_line
from hypercache.auth.keyfile import add_key, read_keys
from hypercache.auth.providers import provider_named
from hypercache.cli.keys import keygen
from hypercache.config import load_settings
from tests.auth.handshakes import handshakes, key

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


def run(path: Path, *options: str, fails: bool = False) -> str:
    result = CliRunner().invoke(keygen, [str(path), *options])
    assert result.exit_code == (1 if fails else 0), result.output
    return result.output


def only(path: Path) -> NodeCredential:
    (credential,) = read_keys(path)[0]
    return credential


def toml_of(output: str) -> str:
    """Return the part of an output that goes into the configuration."""
    return "\n".join(line for line in output.splitlines() if re.match(r"\[|\w+ = ", line))


def test_the_file_and_the_printed_settings_make_two_nodes_trust_each_other(tmp_path: Path) -> None:
    path = tmp_path / 'odd "name"'
    settings = load_settings(toml_of(run(path)))
    dialler, listener = (provider_named(settings, node_id, time.time) for node_id in (5, 9))
    sides = handshakes(dialler.key_id(), now=time.time())
    proofs = [provider.authenticate(side) for provider, side in zip((dialler, listener), sides, strict=True)]
    assert proofs[1].verify(proofs[0].proof)
    assert proofs[0].verify(proofs[1].proof)


def test_a_new_file_has_one_shared_key_from_now_for_a_year_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    before = int(time.time())
    output = run(tmp_path / "keys")
    credential = only(tmp_path / "keys")
    assert credential.node_id == 0
    assert before <= credential.valid_from <= time.time()
    assert credential.valid_to == credential.valid_from + 365 * DAY
    assert f"key {credential.key_id} for any member, from 2" in output
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert len(set(credential.key)) > 8


def test_no_output_shows_a_key(tmp_path: Path) -> None:
    shown = run(tmp_path / "keys") + run(tmp_path / "keys")
    for credential in read_keys(tmp_path / "keys")[0]:
        line = key_line(credential).decode()
        assert line.rpartition(' "')[2].strip('"}\n') not in shown


def test_each_key_is_another(tmp_path: Path) -> None:
    for _ in range(5):
        run(tmp_path / "keys")
    keys = list(read_keys(tmp_path / "keys")[0])
    assert len({each.key for each in keys}) == len({each.key_id for each in keys}) == 5


def test_a_key_that_follows_others_begins_in_a_day_and_the_way_to_rotate_is_shown(tmp_path: Path) -> None:
    run(tmp_path / "keys")
    before = int(time.time())
    output = run(tmp_path / "keys")
    _, second = read_keys(tmp_path / "keys")[0]
    assert before + DAY <= second.valid_from <= time.time() + DAY
    assert "To rotate:" in output
    assert "holds 2 keys" in output


@pytest.mark.parametrize(("left", "begins"), [(1200, 600), (-600, 0), (DAY, DAY // 2), (10 * DAY, DAY)])
def test_a_key_begins_while_the_one_that_it_follows_is_valid(tmp_path: Path, left: int, begins: int) -> None:
    now = int(time.time())
    add_key(tmp_path / "keys", key("old", valid_from=now - DAY, valid_to=now + left))
    run(tmp_path / "keys", "--id", "new")
    new = read_keys(tmp_path / "keys")[0].find("new")
    assert new is not None
    assert begins <= new.valid_from - now <= begins + 60


def test_a_nodes_first_key_leaves_it_time_where_the_others_share_one(tmp_path: Path) -> None:
    run(tmp_path / "keys")
    output = run(tmp_path / "keys", "--node", "7", "--id", "seven")
    seven = read_keys(tmp_path / "keys")[0].find("seven")
    assert seven is not None
    assert seven.node_id == 7
    assert seven.valid_from > time.time() + DAY - 60
    settings = load_settings(toml_of(output))
    assert (settings.node.id, settings.security.auth) == (7, "hmac")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2027-01-01", 1_798_761_600), ("2027-01-01T00:00:00Z", 1_798_761_600), ("2027-01-01T02:00:30+02:00", 1_798_761_630)],
)
def test_begin_life_and_name_can_be_given(tmp_path: Path, text: str, seconds: int) -> None:
    run(tmp_path / "keys", "--from", text, "--days", "2", "--id", "mine")
    credential = only(tmp_path / "keys")
    assert (credential.key_id, credential.valid_from, credential.valid_to) == ("mine", seconds, seconds + 2 * DAY)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--from", "soon"), "'soon' is no date; write 2027-01-01"),
        (("--from", "2027-01-01T00:00:00"), "has no time zone; end it with Z"),
        (("--id", ""), "1 to 255 bytes"),
        (("--from", "9999-12-01"), "between the years 1970 and 9999"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_no_file(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    assert told in run(tmp_path / "keys", *options, fails=True)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_and_a_broken_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    run(path, "--id", "a")
    assert "has the id 'a' too" in run(path, "--id", "a", fails=True)
    path.write_text("oops")
    assert "line 1: " in run(path, fails=True)
    assert path.read_text() == "oops"
    assert "cannot be written: No such file" in run(tmp_path / "none" / "keys", fails=True)


def test_comments_stay(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("# of the cluster in Bern")
    run(path)
    run(path)
    assert path.read_text().startswith("# of the cluster in Bern\n{")
    assert len(read_keys(path)[0]) == 2


def test_the_printed_settings_are_toml(tmp_path: Path) -> None:
    assert tomllib.loads(toml_of(run(tmp_path / "keys")))["security"] == {"auth": "hmac", "key_file": str(tmp_path / "keys")}
