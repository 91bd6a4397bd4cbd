"""Workers whose login does not own the tables: what owners of databases give to programs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from eventbus import Event, EventBus
from eventbus.contract.history import Selection
from eventbus.postgres import Database
from eventbus.roles.history_group import recorder
from tests.integration.commands import eventbus_here
from tests.waiting import eventually
from tests.working import working

RIGHTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"


class Scanned(Event, type="scan.scanned"):
    pass


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Has migrated."""
    run = await asyncio.to_thread(eventbus_here, "migrate", EVENTBUS_DATABASE_URL=database_url)
    assert run.returncode == 0, run.stderr
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def runtime_url(owner: asyncpg.Connection, database_url: str) -> AsyncIterator[str]:
    """Of a login that may read and write rows, and no more."""
    role = f"runtime_{uuid4().hex}"
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'sesame'; {RIGHTS.format(role=role)}")
    parts = urlsplit(database_url)
    yield parts._replace(netloc=f"{role}:sesame@{parts.hostname}:{parts.port}").geturl()
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_history_is_recorded_without_the_right_to_make_partitions(
    owner: asyncpg.Connection, runtime_url: str, redis_url: str
) -> None:
    for table in ("eventbus_events", "eventbus_executions"):
        for row in await owner.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = to_regclass($1) "
            "AND inhrelid::regclass::text !~ 'default$'",
            table,
        ):
            await owner.execute(f"DROP TABLE {row['name']}")
    kept = timedelta(days=30)
    async with EventBus(redis_url, database=runtime_url, history=kept) as bus, working(bus, recorder()):
        await bus.publish_many([Scanned() for _ in range(300)])
        await eventually(lambda: counted(bus))
    assert await owner.fetchval("SELECT count(*) FROM eventbus_events_default") == 300


async def counted(bus: EventBus) -> bool:
    return await bus.history.count(Selection(types=("scan.*",))) == 300


async def test_migrating_makes_the_partitions_of_now(owner: asyncpg.Connection) -> None:
    now = await owner.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
    assert await owner.fetchval("SELECT to_regclass($1) IS NOT NULL", f"eventbus_events_{now}")


async def test_the_doctor_names_what_a_login_lacks(
    owner: asyncpg.Connection, runtime_url: str, database_url: str, redis_url: str
) -> None:
    async def doctor(url: str) -> str:
        environment = {"EVENTBUS_REDIS_URL": redis_url, "EVENTBUS_DATABASE_URL": url, "COLUMNS": "400"}
        run = await asyncio.to_thread(eventbus_here, "doctor", "--watch", "0", **environment)
        assert "sesame" not in run.stdout + run.stderr
        return " ".join(run.stdout.split())

    role = str(urlsplit(runtime_url).username)
    told = await doctor(runtime_url)
    assert "no partitions are made or dropped for the history" in told
    assert "lacks" not in told
    await owner.execute(f"REVOKE INSERT ON eventbus_outbox FROM {role}")
    assert f"{role} lacks INSERT on eventbus_outbox" in await doctor(runtime_url)
    told = await doctor(database_url)
    assert "lacks" not in told
    assert "no partitions" not in told


async def test_a_login_without_rights_is_not_away(owner: asyncpg.Connection, runtime_url: str) -> None:
    await owner.execute(f"REVOKE INSERT ON eventbus_outbox FROM {urlsplit(runtime_url).username}")
    database = Database(runtime_url)
    await database.connect()
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with database.transaction() as tx:
                await tx.publish(Scanned())
    finally:
        await database.close()
