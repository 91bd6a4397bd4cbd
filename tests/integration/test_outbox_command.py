"""`eventbus outbox`, and what doctor and status tell of rows that wait or were set aside."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from eventbus.cli.checks import examine_database
from eventbus.contract.inspection import Finding, Severity
from eventbus.postgres import Database, apply, installed, relay_decisions
from eventbus.settings import Settings
from eventbus.telemetry import Metrics, Survey
from tests.integration.commands import eventbus_here
from tests.integration.test_relay import Breakable, file, nothing_waits, read
from tests.integration.test_relay import relaying as at_work
from tests.integration.test_relay_row_by_row import insert, set_aside
from tests.waiting import eventually

BAD = {"meta": '{"priority":2.0}'}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_decisions, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(relay_decisions, "LONGEST_PAUSE", 0.2)


@pytest.fixture
async def transport(redis_url: str) -> AsyncIterator[Breakable]:
    transport = Breakable(redis_url)
    yield transport
    await transport.close()


@pytest.fixture
async def migrated_url(database_url: str) -> str:
    """With all that is installed: doctor wants it."""
    database = Database(database_url)
    await database.connect()
    async with database.connection() as connection:
        await apply(connection, installed())
    await database.close()
    return database_url


async def doctor(url: str) -> list[Finding]:
    return await examine_database(Settings(database_url=url))


async def grow_old(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE eventbus_outbox SET created_at = created_at - $1::interval", timedelta(minutes=5)
        )


async def test_what_was_set_aside_is_told_mended_and_sent(
    database: Database, migrated_url: str, redis_url: str, transport: Breakable
) -> None:
    urls = {"EVENTBUS_DATABASE_URL": migrated_url, "EVENTBUS_REDIS_URL": redis_url}

    async def command(*args: str) -> str:
        run = await asyncio.to_thread(eventbus_here, *args, **urls)
        assert run.returncode == 0, run.stderr
        return run.stdout

    first = await insert(database, **BAD)
    second, third = await insert(database, **BAD), await insert(database, **BAD)
    async with at_work(migrated_url, transport):
        await eventually(lambda: all_set_aside(database, 3))
        listed = json.loads(await command("outbox", "list", "--json"))
        assert (listed["aside"], listed["relayAtWork"], listed["waiting"]) == (3, True, [])
        assert [item["eventId"] for item in listed["items"]] == [first, second, third]
        assert "priority" in listed["items"][0]["error"]
        found = await doctor(migrated_url)
        assert [finding.severity for finding in found] == [Severity.ERROR] * 3
        for finding, item in zip(found, listed["items"], strict=True):
            position = item["position"]
            assert all(part in finding.message for part in (f"row {position} ", item["eventId"], "priority"))
            assert f"eventbus outbox retry {position}" in finding.remedy
        explained = await asyncio.to_thread(eventbus_here, "explain", first, **urls)
        assert "not published" in explained.stdout, explained
        assert json.loads(await command("status", "--json"))["outbox"]["setAside"] == 3
        metrics = Metrics()
        await Survey(metrics, transport, database).look()
        assert metrics.outbox is not None
        assert (metrics.outbox.rows, metrics.outbox.aside) == (0, 3)
        async with database.connection() as connection:
            await connection.execute("UPDATE eventbus_outbox SET meta = '' WHERE event_id = $1", first)
        assert "retried 1" in await command("outbox", "retry", str(listed["items"][0]["position"]))
        assert await read(transport, 1) == [0]
        assert "discarded 1" in await command("outbox", "discard", second)
        assert "retried 1" in await command("outbox", "retry", "--all")
        await eventually(lambda: all_set_aside(database, 1))
        assert list(await set_aside(database)) == [third], "it is still what it was"
        assert "discarded 1" in await command("outbox", "discard", "--all", "--yes")
        await eventually(lambda: nothing_waits(database))
    assert [finding.severity for finding in await doctor(migrated_url)] == [Severity.OK]
    assert (await asyncio.to_thread(eventbus_here, "outbox", "retry", **urls)).returncode == 2


async def all_set_aside(database: Database, count: int) -> bool:
    return len(await set_aside(database)) == count


async def test_doctor_knows_whether_a_relay_is_at_work_and_which_stream_refuses(
    database: Database, migrated_url: str, redis_url: str, transport: Breakable
) -> None:
    await file(database, 1)
    await grow_old(database)
    [finding] = await doctor(migrated_url)
    assert "no relay is at work" in finding.remedy
    async with at_work(migrated_url, transport):
        assert await read(transport, 1) == [1]
        await transport._router.execute("SET", "eb:{secret}:stream", "no stream")
        await insert(database, type="secret.kept")
        await grow_old(database)

        async def told() -> list[Finding]:
            return [finding for finding in await doctor(migrated_url) if "WRONGTYPE" in finding.message]

        [finding] = await eventually(told)
        assert "stream secret" in finding.message
        assert finding.severity is Severity.ERROR
        assert "start a worker" not in finding.remedy
        await transport._router.execute("DEL", "eb:{secret}:stream")
        await eventually(lambda: nothing_waits(database))
