"""The `eventbus` command: the framework's own commands, and those that installed applications bring along.

An application registers its commands as entry points of the group `eventbus.commands`, and its SQL files in the group
`eventbus.migrations`. So this package serves any service, and imports none.
"""

import sys
from importlib.metadata import entry_points
from importlib.util import find_spec

import typer

from eventbus.cli import dead
from eventbus.cli.screen import report
from eventbus.errors import EventBusError


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
    app.add_typer(dead.app, name="dead")
    for entry in sorted(entry_points(group="eventbus.commands"), key=lambda entry: entry.name):
        app.command(name=entry.name)(entry.load())
    return app


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 usage, 3 a server is away."""
    try:
        build()()
    except EventBusError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)
