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

from eventbus.cli import dead, groups, schema, spool
from eventbus.cli.abort import abort
from eventbus.cli.asyncapi import asyncapi
from eventbus.cli.audit import audit
from eventbus.cli.doctor import doctor
from eventbus.cli.explain import explain
from eventbus.cli.publish import publish
from eventbus.cli.screen import report
from eventbus.cli.status import status
from eventbus.cli.worker import worker
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.logs import configure


def build(wanted: str | None = None) -> typer.Typer:
    """The whole command line; if `wanted` is a command's name, without the commands of applications that it is not: who
    asks what is wrong should not have to wait until a web server is imported."""
    app = typer.Typer(
        help="Publish, handle, see and mend events.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    if find_spec("asyncpg"):  # an extra; without it there is nothing to migrate, and no history
        from eventbus.cli import outbox, replay  # noqa: PLC0415
        from eventbus.cli.migrate import migrate  # noqa: PLC0415
        from eventbus.cli.trace import trace  # noqa: PLC0415

        app.command("migrate")(migrate)
        app.command("trace")(trace)
        app.add_typer(replay.app, name="replay")
        app.add_typer(outbox.app, name="outbox")
    app.command("worker")(worker)
    app.command("publish")(publish)
    app.command("status")(status)
    app.command("explain")(explain)
    app.command("doctor")(doctor)
    app.command("audit")(audit)
    app.command("abort")(abort)
    app.command("asyncapi")(asyncapi)
    app.add_typer(dead.app, name="dead")
    app.add_typer(groups.app, name="groups")
    app.add_typer(spool.app, name="spool")
    app.add_typer(schema.app, name="schema")
    entries = {entry.name: entry for entry in entry_points(group="eventbus.commands")}
    own = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    for name in sorted(entries):
        if name == wanted or wanted not in own | entries.keys():
            app.command(name)(_load(entries[name]))
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
        build(sys.argv[1] if len(sys.argv) > 1 else None)()
    except EventBusError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        sys.exit(130)
