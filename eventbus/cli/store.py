"""The event store, for commands that need it. Imported where asyncpg, an extra, is installed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventbus.postgres import Database, installed, require
from eventbus.settings import Settings


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """Raises ConfigurationError if none is configured or it lacks migrations of ours, Unavailable if it is away."""
    database = Database(Settings().require_database_url())
    try:
        await database.connect()
        await check_migrated(database)
        yield database
    finally:
        await database.close()


async def check_migrated(database: Database) -> None:
    """Raises ConfigurationError if the database lacks migrations of the bus."""
    await require(database, [migration for migration in installed() if migration.source == "eventbus"])
