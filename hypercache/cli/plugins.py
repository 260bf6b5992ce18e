"""``hypercache plugins``: which plug-ins there are, and what is wrong with those that cannot be used."""

from __future__ import annotations

import click
import msgspec

from hypercache.config import PluginSettings, load_settings
from hypercache.discovery import Plugin, Plugins, complaint, load_plugins
from hypercache.errors import ConfigurationError
from hypercache.tap import read_config
from hypercache.wire import Schema


def understood() -> Schema:
    """Return the messages that HyperCache and its plug-ins declare; those that cannot be used are named on standard error."""
    plugins = load_plugins(PluginSettings())
    for plugin in plugins.failed:
        click.echo(complaint(plugin), err=True)
    return plugins.schema


@click.command("plugins")
@click.option("--config", "file", type=click.Path(), help="TOML file with the settings.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
def plugins_command(file: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the plug-ins, where each comes from, and why one is left out. Exits with 1 where one cannot be used."""
    try:
        settings = load_settings(read_config(file), overrides)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    # All are to be listed, also where a node would refuse to start for one of them.
    plugins = load_plugins(msgspec.structs.replace(settings.plugins, strict=False))
    if as_json:
        listed = {"found": plugins.found, "disabled": plugins.disabled, "failed": plugins.failed}
        click.echo(msgspec.json.format(msgspec.json.encode(listed)).decode())
    else:
        click.echo(as_text(plugins), nl=False)
    raise SystemExit(1 if plugins.failed else 0)


def as_text(plugins: Plugins) -> str:
    """Return the list of plug-ins for a reader: two lines each, three where one cannot be used."""
    lines: list[str] = []
    for state, group in (("used", plugins.found), ("disabled", plugins.disabled), ("FAILED", plugins.failed)):
        for plugin in group:
            interface = f"  {plugin.interface}" if plugin.interface else ""
            lines += [f"{state}  {plugin.name}{interface}{_origin(plugin)}", f"    {plugin.module}  {plugin.file}"]
            if plugin.reason:
                lines.append(f"    {plugin.reason}")
    return "\n".join([*(lines or ["There are no plug-ins."]), ""])


def _origin(plugin: Plugin) -> str:
    return f"  {plugin.distribution} {plugin.version}" if plugin.distribution else ""
