"""SQL files are applied once, in order, by one process at a time."""

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import asyncpg
import pytest

from eventbus.cli import migrate as command
from eventbus.errors import ConfigurationError
from eventbus.postgres import Database, Migration, apply, load, pending
from eventbus.postgres import migrations as module
from tests.integration.commands import eventbus_here

ONE = Migration("app/0001_one.sql", "CREATE TABLE one (id int); INSERT INTO one VALUES (1)")
TWO = Migration("app/0002_two.sql", "CREATE TABLE two (id int); INSERT INTO two SELECT id FROM one")
BROKEN = Migration("app/0003_broken.sql", "CREATE TABLE three (id int); SELECT no_such_function()")


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def applied(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT name FROM eventbus_migrations ORDER BY applied_at, name")
    return [row["name"] for row in rows]


async def test_each_is_applied_once_and_in_order(connection: asyncpg.Connection) -> None:
    assert await apply(connection, [ONE]) == [ONE]
    assert await apply(connection, [ONE, TWO]) == [TWO]
    assert await apply(connection, [ONE, TWO]) == []
    assert await applied(connection) == [ONE.name, TWO.name]
    assert await connection.fetchval("SELECT count(*) FROM two") == 1


async def test_what_is_pending_is_told_and_nothing_touched(connection: asyncpg.Connection) -> None:
    assert await pending(connection, [ONE, TWO]) == [ONE, TWO]
    assert await connection.fetchval("SELECT to_regclass('eventbus_migrations')") is None
    await apply(connection, [ONE])
    assert await pending(connection, [ONE, TWO]) == [TWO]


async def test_one_that_changed_after_it_was_applied_is_refused(connection: asyncpg.Connection) -> None:
    await apply(connection, [ONE])
    changed = ONE._replace(sql=ONE.sql + " ")
    for call in (pending, apply):
        with pytest.raises(ConfigurationError, match=r"changed after they were applied: app/0001_one\.sql"):
            await call(connection, [changed, TWO])
    assert await applied(connection) == [ONE.name]
    assert await apply(connection, [ONE, TWO]) == [TWO], "the lock was given back"


async def test_one_that_fails_leaves_no_trace_of_itself(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.UndefinedFunctionError):
        await apply(connection, [ONE, BROKEN, TWO])
    assert await applied(connection) == [ONE.name]
    assert await connection.fetchval("SELECT to_regclass('three')") is None
    assert await apply(connection, [ONE, TWO]) == [TWO]


async def test_one_that_cannot_be_recorded_is_not_applied_either(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await apply(connection, [ONE, TWO._replace(name=ONE.name)])
    assert await connection.fetchval("SELECT to_regclass('two')") is None


async def test_two_who_migrate_at_once_apply_each_once(database_url: str) -> None:
    async def migrate() -> list[Migration]:
        connection = await asyncpg.connect(database_url)
        try:
            return await apply(connection, [ONE, TWO])
        finally:
            await connection.close()

    done = await asyncio.gather(*(migrate() for _ in range(4)))
    assert sorted(migration for each in done for migration in each) == [ONE, TWO]


async def test_who_waits_for_another_says_so_and_goes_on_when_that_has_ended(
    connection: asyncpg.Connection, database_url: str
) -> None:
    told = asyncio.Event()
    other = await asyncpg.connect(database_url, command_timeout=0.1)
    try:
        async with connection.transaction():
            assert await connection.fetchval(module._TRY, module._FORMER, module._LOCK)
            waiting = asyncio.create_task(apply(other, [ONE], waits=told.set))
            await told.wait()
            assert not waiting.done()
        assert await waiting == [ONE]
    finally:
        await other.close()


async def test_who_migrates_beside_one_of_a_former_build_waits(
    connection: asyncpg.Connection, database_url: str
) -> None:
    told = asyncio.Event()
    former = await asyncpg.connect(database_url)
    try:
        await former.execute("SELECT pg_advisory_lock($1)", 0x6576_6275_7301)
        waiting = asyncio.create_task(apply(connection, [ONE], waits=told.set))
        await told.wait()
    finally:
        await former.close()
    assert await waiting == [ONE]


def test_a_migration_takes_as_long_as_it_takes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = Migration("app/0001_long.sql", "SELECT pg_sleep(1.5)")
    monkeypatch.setitem(Database.__init__.__kwdefaults__ or {}, "command_timeout", 1.0)
    own = load("eventbus", files("eventbus.postgres") / "migrations")
    monkeypatch.setattr(command, "installed", lambda: [*own, long])
    run = eventbus_here("migrate", EVENTBUS_DATABASE_URL=database_url)
    assert (run.returncode, "applied app/0001_long.sql" in run.stdout) == (0, True), run.stderr


async def test_a_search_path_that_leads_nowhere_is_named(connection: asyncpg.Connection) -> None:
    await connection.execute("SET search_path = nowhere")
    with pytest.raises(ConfigurationError, match="the search_path of this login names none that exists"):
        await apply(connection, [ONE])


def test_files_are_loaded_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("0010_c.sql", "0002_b.sql", "0001_a.sql", "README.md"):
        (tmp_path / name).write_text(f"-- {name}")
    assert [migration.name for migration in load("app", tmp_path)] == [
        "app/0001_a.sql",
        "app/0002_b.sql",
        "app/0010_c.sql",
    ]


async def test_those_of_the_bus_apply(connection: asyncpg.Connection) -> None:
    own = load("eventbus", files("eventbus.postgres") / "migrations")
    assert await apply(connection, own) == own
    assert own[0].name == "eventbus/0001_outbox_and_inbox.sql"
