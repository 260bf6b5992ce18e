"""The group of all commands."""

from __future__ import annotations

import click

from hypercache import __version__
from hypercache.cli.certificates import certs
from hypercache.cli.frames import encode, inspect, schema
from hypercache.cli.keys import keygen
from hypercache.cli.plugins import plugins_command
from hypercache.cli.settings import config
from hypercache.cli.status import status


@click.group()
@click.version_option(__version__, prog_name="hypercache")
def main() -> None:
    """Look at HyperCache's frames and settings. A node is started by: twistd -n hypercache node."""


main.add_command(inspect)
main.add_command(encode)
main.add_command(schema)
main.add_command(config)
main.add_command(keygen)
main.add_command(plugins_command)
main.add_command(certs)
main.add_command(status)
