"""The bus' own tables in a database of the test's own."""

from collections.abc import AsyncIterator, Iterator
from importlib.resources import files

import asyncpg
import pytest

from eventbus.postgres import Database, apply, load
from tests.databases import Databases


async def _migrated(connection: asyncpg.Connection) -> None:
    await apply(connection, load("eventbus", files("eventbus.postgres") / "migrations"))


@pytest.fixture
def migrated_url(databases: Databases) -> Iterator[str]:
    url = databases.lend(_migrated)
    yield url
    databases.take_back(url)


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    database = Database(migrated_url)
    await database.connect()
    yield database
    await database.close()
