"""Connections for a command. The server need only answer: what else is wrong there is for the command to find out."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec

import typer

from eventbus.checks.addresses import show_url
from eventbus.contract.codec import pairs
from eventbus.contract.inspection import OutboxStanding, Trace
from eventbus.contract.replays import Replay
from eventbus.errors import EventBusError
from eventbus.operating.control import Pause, pauses
from eventbus.redis.keys import control_key
from eventbus.redis.links import Links
from eventbus.redis.router import Router
from eventbus.settings import Settings

NAMESPACE = "eb"
TIMEOUT = 5.0  # seconds
_EVENT_ID = re.compile(r"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def event_id(text: str) -> str:
    """An argument that names an event. Raises typer.BadParameter for what cannot be one."""
    if not _EVENT_ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no event id: those are UUIDs of version 7")
    return text


@asynccontextmanager
async def redis() -> AsyncIterator[Router]:
    """Raises ConfigurationError if no server is configured or the login is refused, Unavailable if it is away."""
    router = Router(Settings().require_redis_url(), timeout=TIMEOUT, name="eventbus-operator", primary=False)
    try:
        await router.ready()
        yield router
    finally:
        await router.close()


async def paused(links: Links) -> dict[str, Pause]:
    """The paused groups."""
    controls = pairs(await links.execute("HGETALL", control_key(NAMESPACE)))
    return pauses({name.decode(errors="backslashreplace"): note for name, note in controls.items()})


def redis_name() -> str:
    """The configured server, as it may be shown."""
    return show_url(Settings().require_redis_url())


async def traced(event_id: str) -> Trace | None:
    """What PostgreSQL remembers of an event; None if none is configured. If it is away, that is said on stderr."""
    dsn = _dsn()
    if dsn is None:
        return None
    from eventbus.postgres import Database, trace  # noqa: PLC0415 - asyncpg is an extra

    database = Database(dsn)
    try:
        await database.connect()
        async with database.connection() as connection:
            return await trace(connection, event_id)
    except EventBusError as error:
        typer.echo(f"outbox and inbox are not looked at: {error}", err=True)
        return None
    finally:
        await database.close()


async def outbox() -> OutboxStanding | None:
    """How the outbox stands; None if there is no database, or no outbox. If it is away, that is said on stderr."""
    dsn = _dsn()
    if dsn is None:
        return None
    from eventbus.postgres import Database  # noqa: PLC0415 - asyncpg is an extra

    database = Database(dsn)
    try:
        await database.connect()
        return await database.outbox_standing()
    except EventBusError as error:
        typer.echo(f"the outbox is not looked at: {error}", err=True)
        return None
    finally:
        await database.close()


async def keep(replay: Replay) -> None:
    """Put a replay that has taken place on record, where there is PostgreSQL. If that is away, it is said on stderr,
    and nothing is raised: nobody is kept from mending."""
    if _dsn() is None:
        return
    from eventbus.cli import store  # noqa: PLC0415 - asyncpg is an extra

    try:
        async with store.database() as database:
            await database.replays.keep(replay)
    except EventBusError as error:
        typer.echo(f"this is not on record: {error}", err=True)


def _dsn() -> str | None:
    """The database's URL; None if none is configured, or where asyncpg is not installed."""
    return Settings().database_url if find_spec("asyncpg") else None
