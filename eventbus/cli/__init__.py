"""The `eventbus` command: the framework's own commands, and those that installed applications bring along.

An application registers its consumer groups as an entry point of the group `eventbus.apps`, its commands in the group
`eventbus.commands`, and its SQL files in the group `eventbus.migrations`. So this package serves any service, and
imports none.
"""

import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

import typer

from eventbus.cli import dead, spool
from eventbus.cli.publish import publish
from eventbus.cli.screen import report
from eventbus.cli.worker import worker
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.logs import configure


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        help="Publish, handle, see and mend events.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    if find_spec("asyncpg"):  # an extra; without it there is nothing to migrate
        from eventbus.cli.migrate import migrate  # noqa: PLC0415

        app.command()(migrate)
    app.command()(worker)
    app.command()(publish)
    app.add_typer(dead.app, name="dead")
    app.add_typer(spool.app, name="spool")
    for entry in sorted(entry_points(group="eventbus.commands"), key=lambda entry: entry.name):
        app.command(name=entry.name)(_load(entry))
    return app


def _load(entry: EntryPoint) -> Callable[..., None]:
    """The command, or one that says which package it lacks: the others must not suffer from a slim installation."""
    try:
        command: Callable[..., None] = entry.load()
    except ImportError as error:
        missing = error.name

        def command() -> None:
            """(not installed)"""
            raise ConfigurationError(f"`eventbus {entry.name}` needs {missing}: pip install 'eventbus[all]'")

    return command


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 usage, 3 a server is away."""
    # To stderr, and errors alone: what a command prints is its answer. Long-running ones configure their own.
    configure("console", level=logging.ERROR)
    try:
        build()()
    except EventBusError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)
