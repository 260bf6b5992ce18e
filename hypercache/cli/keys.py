"""``hypercache keygen``: the keys that nodes authenticate with."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from hypercache.auth.credentials import ANY_NODE, Keyring, NodeCredential, instant
from hypercache.auth.keyfile import add_key, held_keys
from hypercache.errors import ConfigurationError
from hypercache.limits import CREDENTIAL_LEAD_SECONDS, CREDENTIAL_LIFE_DAYS
from hypercache.wire.signing import KEY_BYTES

_DAY_SECONDS: Final = 24 * 3600
_LIFE_MAX_DAYS: Final = 100 * 366

_SHARED: Final = """\
Every node needs a copy of the file that its user alone can read (mode 600), and in its TOML:
"""

_BOUND: Final = """\
Before the key begins, node {node} needs its line, and no other node's; the nodes that it dials need the lines of all nodes that may
dial them. Files must be readable by the node's user alone (mode 600). In node {node}'s TOML:

[node]
id = {node}
"""

_SETTINGS: Final = """\
[security]
auth = "hmac"
key_file = {file}

To rotate, run this command on the file again, later.
"""

_ROTATION: Final = """\
To rotate:
1. Before {begin} put the new file in the old one's place at every node that has it. It is read within a second;
   nothing restarts.
2. From then on new links use the new key. The old one is good until it ends; then links are made anew with the new one.
3. When the old key has ended, take its line out.
"""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--node", type=click.IntRange(0, (1 << 64) - 1), default=ANY_NODE, help="The node that the key is bound to; 0: all share it."
)
@click.option(
    "--days",
    type=click.IntRange(1, _LIFE_MAX_DAYS),
    default=CREDENTIAL_LIFE_DAYS,
    show_default=True,
    help="How long the key is valid.",
)
@click.option(
    "--from",
    "begin",
    metavar="DATE",
    help="When it begins: 2027-01-01, or 2027-01-01T12:00:00Z. [default: now; where it follows a key, in a day at most]",
)
@click.option("--id", "key_id", metavar="NAME", help="The key's name, which is no secret. [default: made from its date]")
def keygen(file: Path, node: int, days: int, begin: str | None, key_id: str | None) -> None:
    """Make a key, and the key FILE where there is none; append the key where there is one."""
    try:
        held = held_keys(file)
        valid_from = _begin(held, node, time.time()) if begin is None else _seconds(begin)
        name = key_id if key_id is not None else f"{instant(valid_from)[:10]}-{secrets.token_hex(2)}"
        credential = NodeCredential(name, node, secrets.token_bytes(KEY_BYTES), valid_from, valid_from + days * _DAY_SECONDS)
        total = len(add_key(file, credential))
    except (ConfigurationError, OSError) as error:
        raise click.ClickException(str(error)) from None
    whose = f"node {node}" if node else "any member"
    click.echo(f"key {name} for {whose}, from {instant(credential.valid_from)} to {instant(credential.valid_to)}")
    click.echo(f"{file} holds {total} {'key' if total == 1 else 'keys'}\n")
    if held.of_node(node):
        click.echo(_ROTATION.format(begin=instant(valid_from)), nl=False)
    else:
        click.echo(_BOUND.format(node=node) if node else _SHARED)
        click.echo(_SETTINGS.format(file=json.dumps(str(file.resolve()))), nl=False)


def _begin(held: Keyring, node: int, now: float) -> float:
    """Return when a key should begin, in Unix seconds: now, or where it follows others, when all nodes can have it.

    The last key must be valid for a while then, or its links would end at the moment in which they should be made anew.
    """
    latest = max((each.valid_to for each in (*held.of_node(node), *held.of_node(ANY_NODE))), default=now)
    return float(int(now + min(max(latest - now, 0) / 2, CREDENTIAL_LEAD_SECONDS)))


def _seconds(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is no date; write 2027-01-01 or 2027-01-01T12:00:00Z") from None
    if moment.tzinfo is None:
        if len(text) != len("2027-01-01"):
            raise ConfigurationError(f"{text!r} has no time zone; end it with Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
