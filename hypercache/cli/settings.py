"""``hypercache config``: check and show settings."""

from __future__ import annotations

import click
import msgspec

from hypercache.config import as_toml, load_settings
from hypercache.errors import ConfigurationError
from hypercache.roles.exposure import check_exposure
from hypercache.tap import read_config


@click.group()
def config() -> None:
    """Check and show settings."""


@config.command()
@click.argument("file", type=click.Path())
def validate(file: str) -> None:
    """Say what is wrong with a configuration FILE; exit with 1 where something is."""
    try:
        check_exposure(load_settings(read_config(file)))
    except ConfigurationError as error:
        for problem in str(error).split("; "):
            click.echo(f"{file}: {problem}", err=True)
        raise SystemExit(1) from None
    click.echo(f"{file}: OK")


@config.command()
@click.option("--config", "file", type=click.Path(), help="TOML file with the settings.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of TOML.")
def show(file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show the settings that a file and overrides make, defaults included."""
    try:
        settings = load_settings(read_config(file), overrides)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(settings)).decode())
    else:
        click.echo(as_toml(settings), nl=False)
