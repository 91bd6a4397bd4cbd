"""The bus of a process of this application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventbus import EventBus
from eventbus.postgres import Database, installed, require
from eventbus.settings import Settings


@asynccontextmanager
async def open_bus(settings: Settings) -> AsyncIterator[EventBus]:
    """A connected bus on a database that is up to date.

    Raises Unavailable if a server is away, ConfigurationError if one is not configured or migrations are pending."""
    bus = EventBus(
        settings.require_redis_url(),
        database=settings.require_database_url(),
        spool=settings.spool_path,
        history=settings.history,
        min_replicas=settings.min_replicas,
        partitions=settings.partitions,
    )
    async with bus:
        assert isinstance(bus.database, Database), "opened with a database"
        await require(bus.database, installed())
        yield bus
