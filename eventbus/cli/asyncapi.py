"""`eventbus asyncapi`: the types, streams and groups of an application, for machines."""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Annotated

import orjson
import typer

from eventbus.cli.app_option import AppOption, find_apps
from eventbus.operating.apps import INSTALLED, App
from eventbus.operating.asyncapi import document

UNRELEASED = "0.0.0"


def asyncapi(
    app: AppOption = None,
    title: Annotated[str | None, typer.Option(help="Default: the applications' names.")] = None,
    release: Annotated[
        str | None, typer.Option(help="Default: the version of the application, if it is installed.")
    ] = None,
) -> None:
    """Print an AsyncAPI 3.0 document, as JSON. No server is needed."""
    apps = find_apps(app)
    groups = [group for found in apps for group in found.groups]
    told = document(groups, title=title or ", ".join(a.name for a in apps), release=release or _release(apps))
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


def _release(apps: Sequence[App]) -> str:
    """The version of an installed package that registers one of these applications; UNRELEASED if there is none."""
    names = {app.name for app in apps}
    found = [entry.dist.version for entry in entry_points(group=INSTALLED) if entry.name in names and entry.dist]
    return found[0] if found else UNRELEASED
