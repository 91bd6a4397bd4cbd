"""`--app`: which application a command is about, and the bus that it needs."""

import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from typing import Annotated

import typer

from eventbus.bus import EventBus
from eventbus.cli.extras import told_extra
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.group import Group
from eventbus.operating.apps import App, AppNotFound, choose, installed_apps, load_app
from eventbus.roles.history_group import is_recorder
from eventbus.settings import Settings

MIGRATIONS = "eventbus.migrations"
_LINES = 8  # of a traceback: with the frame around it, one screen

AppOption = Annotated[
    list[str] | None,
    typer.Option(
        "--app",
        "-a",
        metavar="MODULE[:NAME]",
        help="Where the groups are; may be given more than once. Default: the installed applications.",
    ),
]


class AppBroken(EventBusError):
    """The module of an application raised while it was imported."""


def find_apps(paths: Sequence[str] | None) -> list[App]:
    """Import what `--app` names, or what is installed.

    Raises typer.BadParameter (exit code 2) if there is no such thing, AppBroken (1) if its import raises."""
    try:
        apps = [load_app(path) for path in paths] if paths else installed_apps()
    except AppNotFound as error:
        raise typer.BadParameter(str(error), param_hint="--app") from None
    except EventBusError:
        raise
    except ImportError as error:
        if (told := told_extra(error, "this application")) is not None:
            raise ConfigurationError(told) from error
        raise AppBroken(_told(error)) from error
    except (Exception, SystemExit) as error:
        raise AppBroken(_told(error)) from error
    if not apps:
        raise typer.BadParameter(
            "no application is installed (entry point eventbus.apps): name yours with --app myservice.events",
            param_hint="--app",
        )
    return apps


def find_groups(apps: Sequence[App], names: Sequence[str] | None) -> list[Group]:
    """The groups that are to run: see eventbus.operating.apps.choose. Raises typer.BadParameter if there are none."""
    try:
        return choose(apps, names or ())
    except AppNotFound as error:
        raise typer.BadParameter(str(error), param_hint="--app") from None


@asynccontextmanager
async def open_bus(settings: Settings, apps: Sequence[App]) -> AsyncIterator[EventBus]:
    """A connected bus. With PostgreSQL if one is configured; an application that brings migrations cannot do without.

    Raises Unavailable if a server is away, ConfigurationError if one is not configured or migrations are pending."""
    url = settings.require_redis_url()
    names = {app.name for app in apps}
    needed = names & {entry.name for entry in entry_points(group=MIGRATIONS)}
    database = settings.require_database_url() if needed else settings.database_url
    recorded = database is not None and any(is_recorder(group) for app in apps for group in app.groups)
    history = settings.history if recorded else None
    bus = EventBus(
        url,
        database=database,
        spool=settings.spool_path,
        history=history,
        min_replicas=settings.min_replicas,
        partitions=settings.partitions,
    )
    async with bus:
        await _check_migrated(bus, {"eventbus", *names})
        yield bus


async def _check_migrated(bus: EventBus, sources: set[str]) -> None:
    if bus.database is None:
        return
    from eventbus.postgres import Database, installed, require  # noqa: PLC0415 - asyncpg is an extra

    if not isinstance(bus.database, Database):
        raise ConfigurationError(f"{type(bus.database).__name__} is not PostgreSQL")
    await require(bus.database, [migration for migration in installed() if migration.source in sources])


def _told(error: BaseException) -> str:
    """The error, and the last lines of its traceback: frames of the import machinery left out."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    lines = [
        line for frame in frames for line in (f"{frame.filename}:{frame.lineno}", f"    {frame.line}") if line.strip()
    ]
    summary = traceback.format_exception_only(error)[-1].strip()
    return "\n".join(["an application cannot be imported:", *(line[-90:] for line in lines[-_LINES:]), summary[:200]])


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or "/importlib/" in filename or filename in _OURS


_OURS = {__file__, load_app.__code__.co_filename}
