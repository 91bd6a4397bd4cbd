"""The command line, put together."""

from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

import typer

from eventbus.cli import dead, groups, schema, spool
from eventbus.cli.abort import abort
from eventbus.cli.asyncapi import asyncapi
from eventbus.cli.audit import audit
from eventbus.cli.doctor import doctor
from eventbus.cli.explain import explain
from eventbus.cli.extras import told_extra
from eventbus.cli.publish import publish
from eventbus.cli.status import status
from eventbus.cli.worker import worker
from eventbus.errors import ConfigurationError

# A command that is not there takes any arguments: whatever it is asked, it answers what it lacks.
_ANY = {"allow_extra_args": True, "ignore_unknown_options": True}


def build(wanted: str | None = None) -> typer.Typer:
    """The whole command line. If `wanted` is a command's name, the applications' other commands are left out: whoever
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
    else:
        for name in ("migrate", "trace", "replay", "outbox"):
            _add_missing(app, name, ImportError("asyncpg is not installed", name="asyncpg"))
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
            _add(app, entries[name])
    return app


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    try:
        command = entry.load()
    except ImportError as error:
        _add_missing(app, entry.name, error)
    else:
        app.command(entry.name)(command)


def _add_missing(app: typer.Typer, name: str, error: ImportError) -> None:
    """Add a command that says what it lacks: the others must not suffer from a slim installation."""
    told = told_extra(error, f"eventbus {name}")

    @app.command(name, context_settings=_ANY)
    def command() -> None:
        """(not installed)"""
        raise ConfigurationError(told or f"`eventbus {name}` cannot be imported: {error}")
