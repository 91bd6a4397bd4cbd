"""Two applications in one database, each with a schema of its own."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from eventbus.postgres import Database, Migration, apply, installed, migrations, partitions
from eventbus.postgres import relay as module
from eventbus.postgres.connecting import Connector
from eventbus.postgres.relay import Relay
from eventbus.postgres.relay_lock import RELAY
from tests.integration.test_relay import Breakable, file
from tests.waiting import PATIENCE, eventually

SCHEMAS = ("one", "two")


@pytest.fixture
async def applications(database_url: str) -> AsyncIterator[list[Database]]:
    databases = [Database(database_url, schema=schema, command_timeout=None) for schema in SCHEMAS]
    for database in databases:
        await database.connect()
        await database.provide_schema()
        async with database.connection() as connection:
            await apply(connection, own())
    yield databases
    for database in databases:
        await database.close()


async def empty(database: Database) -> bool:
    return await database.unpublished() == 0


async def test_each_has_a_relay_at_work_and_is_woken_by_its_own(
    applications: list[Database], database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLEEP", 60.0)  # what is not told is late
    transport = Breakable(redis_url)
    relays = [Relay(Connector(database_url, schema=schema), transport) for schema in SCHEMAS]
    running = [asyncio.create_task(relay.run()) for relay in relays]
    straight = await asyncpg.connect(database_url)
    try:
        await eventually(lambda: straight.fetchval(_SLEEPING))
        for number, database in enumerate([*applications, *reversed(applications)]):
            await file(database, number)
            await eventually(lambda: empty(database))  # noqa: B023 - it is awaited here
        for database in applications:
            standing = await database.outbox_standing()
            assert standing is not None
            assert standing.relay_at_work
        running[1].cancel()
        await asyncio.wait(running[1:])
        await eventually(lambda: at_rest(applications[1]))
        standing = await applications[0].outbox_standing()
        assert standing is not None
        assert standing.relay_at_work
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await straight.close()
        await transport.close()


_SLEEPING = """
SELECT count(*) = 4 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def at_rest(database: Database) -> bool:
    standing = await database.outbox_standing()
    return standing is not None and not standing.relay_at_work


async def test_histories_and_migrations_do_not_wait_for_each_other(applications: list[Database]) -> None:
    one, two = applications
    async with asyncio.timeout(PATIENCE), one.connection() as held, held.transaction():
        await one.recorder.prepare()
        await held.execute(partitions._LOCK)
        assert await held.fetchval(migrations._TRY, migrations._FORMER, migrations._LOCK)
        await two.recorder.prepare()
        async with two.connection() as connection:
            assert await apply(connection, own(), waits=_nobody) == []


def own() -> list[Migration]:
    return [each for each in installed() if each.source == "eventbus"]


def _nobody() -> None:
    raise AssertionError("it waits for another schema's")


async def test_a_relay_holds_no_vacuum_back(applications: list[Database], database_url: str, redis_url: str) -> None:
    """Even where logins have another level than READ COMMITTED."""
    straight = await asyncpg.connect(database_url)
    name = await straight.fetchval("SELECT quote_ident(current_database())")
    await straight.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    transport = Breakable(redis_url)
    running = asyncio.create_task(Relay(Connector(database_url, schema="one"), transport).run())
    try:
        holding = (
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' "
            f"AND classid::bigint = {RELAY >> 32}"
        )
        pid = await eventually(lambda: straight.fetchval(holding))
        await file(applications[0], 1)
        await eventually(lambda: empty(applications[0]))
        held = "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity WHERE pid = $1 AND state LIKE 'idle%'"
        row = await eventually(lambda: straight.fetchrow(held, pid))
        assert tuple(row or ()) == ("idle in transaction", None, None)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await straight.close()
        await transport.close()
