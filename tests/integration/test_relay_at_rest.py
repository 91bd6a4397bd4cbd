"""The relay of a house at rest: it sleeps, and is woken by whoever commits."""

import asyncio
import math
import random
from collections.abc import AsyncIterator
from statistics import median

import asyncpg
import pytest

from eventbus.postgres import Database
from eventbus.postgres import relay as module
from eventbus.postgres.outbox import ASLEEP, CHANNEL
from tests.integration.test_relay import Breakable, Filed, file, read, relaying, terminate_others
from tests.proxy import Proxy
from tests.stopwatch import Stopwatch
from tests.waiting import eventually, until


@pytest.fixture
async def transport(redis_url: str) -> AsyncIterator[Breakable]:
    transport = Breakable(redis_url)
    yield transport
    await transport.close()


async def asleep(database: Database) -> bool:
    """Whether a relay waits to be told."""
    async with database.connection() as connection:
        found: bool = await connection.fetchval(
            "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted "
            "AND (classid::bigint << 32) + objid::bigint = $1 + 'eventbus_outbox'::regclass::oid::bigint "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            ASLEEP,
        )
        return found


async def awakened(database: Database) -> bool:
    return not await asleep(database)


async def test_a_relay_at_rest_is_woken_by_a_commit(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLEEP", 5.0)  # seconds: what is not told is late
    async with relaying(migrated_url, transport):
        late = []
        for number in range(9):
            await eventually(lambda: asleep(database))
            reading = asyncio.create_task(read(transport, 1))
            await file(database, number)
            committed = Stopwatch()
            await until(lambda: transport.appends == number + 1)  # noqa: B023 - it is awaited here
            late.append(committed.seconds)
            assert await reading == [number]
    assert median(late) < 1.0, late


@pytest.mark.parametrize("awake", [True, False])
async def test_a_long_transaction_that_began_before_is_told_or_seen(
    awake: bool, database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLEEP", 60.0)
    async with relaying(migrated_url, transport), database.connection() as connection:
        await eventually(lambda: asleep(database))
        if awake:
            await file(database, 1)
            await eventually(lambda: awakened(database))
        async with connection.transaction():
            await database.outbox(connection).publish(Filed(number=2))
            await asyncio.sleep(0.5)
            assert await asleep(database) is not awake
        assert await read(transport, 1 + awake) == [*([1] if awake else []), 2]


async def test_what_commits_while_the_relay_falls_asleep_is_seen(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its last look and its lock; made long by a slow network."""
    monkeypatch.setattr(module, "SLEEP", 60.0)
    async with Proxy(migrated_url) as proxy, relaying(proxy.url, transport):
        await eventually(lambda: asleep(database))
        proxy.latency = 0.03
        for number in range(12):
            await file(database, number)
            await until(lambda: transport.appends == number + 1)  # noqa: B023
            await asyncio.sleep(random.uniform(0.2, 0.5))


async def test_a_word_that_is_lost_is_made_up_for(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHANNEL", "elsewhere")
    monkeypatch.setattr(module, "SLEEP", 0.3)
    async with relaying(migrated_url, transport):
        for number in range(3):
            await eventually(lambda: asleep(database))
            await file(database, number)
            assert await read(transport, 1) == [number]


async def test_a_busy_relay_is_not_told(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that notify wait for one another."""
    told: list[object] = []
    listening = await asyncpg.connect(migrated_url)
    outbox = await listening.fetchval("SELECT 'eventbus_outbox'::regclass::oid::bigint")
    await listening.add_listener(f"{CHANNEL}{outbox}", lambda *notification: told.append(notification))
    async with relaying(migrated_url, transport):
        await eventually(lambda: asleep(database))
        monkeypatch.setattr(module, "LONGEST_PAUSE", math.inf)  # once awake it stays so, however slow this machine is
        await file(database, 0)
        await eventually(lambda: awakened(database))
        await until(lambda: told)
        woken = len(told)
        for number in range(1, 300):
            await file(database, number)
        assert len(await read(transport, 300)) == 300
    await listening.close()
    assert len(told) == woken == 1


async def test_a_sleeping_relay_notices_at_once_that_it_was_cut_off(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLEEP", 60.0)
    async with relaying(migrated_url, transport):
        await eventually(lambda: asleep(database))
        await terminate_others(database)
        await file(database, 1)
        assert await read(transport, 1) == [1]
