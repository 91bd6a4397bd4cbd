"""A gateway on real servers; its database is a copy of one that is migrated once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from eventbus import EventBus
from eventbus.postgres import apply, installed
from handlers import GROUPS
from tests.databases import Prepare
from tests.gateway.client import Client, Gateway, running
from tests.waiting import eventually
from tests.working import working


async def migrate(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await apply(connection, installed())
    finally:
        await connection.close()


async def _migrated(connection: asyncpg.Connection) -> None:
    await apply(connection, installed())


@pytest.fixture(scope="session")
def prepare_database() -> Prepare:
    return _migrated


@pytest.fixture
async def bus(redis_url: str, database_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=database_url) as bus:
        yield bus


@pytest.fixture
async def gateway(bus: EventBus) -> AsyncIterator[Gateway]:
    async with running(bus) as gateway:
        yield gateway


@pytest.fixture
def ann(gateway: Gateway) -> Client:
    """A user of acme."""
    return gateway.caller("ann", "acme")


@pytest.fixture
def admin(gateway: Gateway) -> Client:
    """An admin of acme."""
    return gateway.caller("root", "acme", "admin")


@pytest.fixture
def stranger(gateway: Gateway) -> Client:
    """An admin of another organization."""
    return gateway.caller("eve", "umbrella", "admin")


@pytest.fixture
async def worker(bus: EventBus) -> AsyncIterator[None]:
    async with working(bus, *GROUPS):
        yield


def told(event: Any) -> dict[str, Any]:
    """The data of an event in the outbox, without the fields that are null."""
    return {name: value for name, value in json.loads(event["data"]).items() if value is not None}


class Tables:
    """What is in the database, seen from outside of the gateway."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._free = asyncio.Lock()  # a peer may look, or change something, while the test looks

    async def count(self, table: str) -> int:
        return await self.number(f"SELECT count(*) FROM {table}")

    async def number(self, query: str) -> int:
        number: int = await self._connection.fetchval(query)
        return number

    async def events(self, kind: str | None = None) -> list[Any]:
        """The outbox, oldest first, data as text."""
        return await self._connection.fetch(
            "SELECT event_id, type, subject, organization, meta, data FROM eventbus_outbox "
            "WHERE $1::text IS NULL OR type = $1 ORDER BY position",
            kind,
        )

    @asynccontextmanager
    async def contended(self, table: str, row_id: str, waiters: int) -> AsyncIterator[None]:
        """Lock a row in this block, and leave it when so many others wait for a lock."""
        async with self._connection.transaction():
            await self._connection.execute(f"SELECT 1 FROM {table} WHERE id = $1 FOR UPDATE", row_id)
            yield
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )

            async def all_wait() -> bool:
                await self._connection.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees one state
                return await self.number(waiting) == waiters

            await eventually(all_wait)

    async def everything(self) -> dict[str, list[str]]:
        """Every row of every table, to be compared; without the keys of requests that were answered."""
        async with self._free:
            found = await self._connection.fetch(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
                "AND table_name <> 'idempotency_keys'"
            )
            names = [row["table_name"] for row in found]
            rows = {name: await self._connection.fetch(f"SELECT t::text FROM {name} t ORDER BY 1") for name in names}
        return {name: [row[0] for row in found] for name, found in rows.items()}

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        async with self._free:
            return await self._connection.fetch(query, *values)

    async def execute(self, statement: str, *values: Any) -> None:
        async with self._free:
            await self._connection.execute(statement, *values)


@pytest.fixture
async def tables(direct_url: str) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(direct_url)
    try:
        yield Tables(connection)
    finally:
        await connection.close()


FUNNEL = {
    "name": "Sales",
    "steps": [
        {
            "name": "New",
            "taskTemplates": [
                {"title": "Call", "description": "Within a day", "dueInHours": 24},
                {"title": "Send offer", "after": "Call"},
                {"title": "Check credit"},
            ],
        },
        {"name": "Won", "taskTemplates": [{"title": "Send contract"}]},
        {"name": "Lost"},
    ],
}


@pytest.fixture
async def funnel(admin: Client) -> Any:
    answer = await admin.post("/api/funnels", FUNNEL)
    assert answer.status == 201, answer
    return answer.body
