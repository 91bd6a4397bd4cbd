"""Settings, bus and groups of a process of this application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from eventbus import ConfigurationError, EventBus, Group, Worker
from eventbus.postgres import Database, installed, pending
from eventbus.settings import Settings
from eventbus.telemetry import serving
from handlers import GROUPS


@asynccontextmanager
async def open_bus(settings: Settings) -> AsyncIterator[EventBus]:
    """A connected bus on a database that is up to date.

    Raises Unavailable if a server is away, ConfigurationError if one is not configured or migrations are pending."""
    async with EventBus(settings.require_redis_url(), database=settings.require_database_url()) as bus:
        await _check_migrated(bus)
        yield bus


async def _check_migrated(bus: EventBus) -> None:
    database = bus.database
    assert isinstance(database, Database), "opened with a database"
    async with database.connection() as connection:
        missing = await pending(connection, installed())
    if missing:
        names = ", ".join(migration.name for migration in missing)
        raise ConfigurationError(f"the database lacks migrations ({names}): run `eventbus migrate` first")


def choose(names: Sequence[str]) -> list[Group]:
    """The groups with these names; all of them for none. Raises ConfigurationError for a name that no group has."""
    known = {group.name: group for group in GROUPS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"no group is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [known[name] for name in dict.fromkeys(names)] or list(GROUPS)


async def run(settings: Settings, names: Sequence[str] = ()) -> None:
    """Work until SIGTERM."""
    groups = choose(names)
    async with open_bus(settings) as bus:
        with serving(bus.metrics, settings):
            await Worker(bus, groups).run()
