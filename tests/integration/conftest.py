"""The bus' own tables in a database of the test's own."""

from collections.abc import AsyncIterator
from importlib.resources import files

import pytest

from eventbus.postgres import Database, apply, load


@pytest.fixture
async def migrated_url(database_url: str) -> str:
    database = Database(database_url)
    await database.connect()
    async with database.connection() as connection:
        await apply(connection, load("eventbus", files("eventbus.postgres") / "migrations"))
    await database.close()
    return database_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url)
    await database.connect()
    yield database
    await database.close()
