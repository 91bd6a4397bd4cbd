"""Fault 11, continued: PostgreSQL is there and takes no writes; or ends the session of a handler, for a reason."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.consuming import lost_sessions
from eventbus.errors import SessionEnded, Unavailable
from eventbus.handling import verdict
from eventbus.postgres import Database, apply, installed
from tests.databases import Databases
from tests.waiting import eventually, until

TERMINATE = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Wanted(Event, type="want.wanted"):
    """Is written down."""


class Noted(Event, type="want.noted"):
    """Was written down."""


async def _prepared(connection: asyncpg.Connection) -> None:
    await apply(connection, installed())
    await connection.execute("CREATE TABLE noted (attempt int)")


@pytest.fixture
def noted_url(databases: Databases) -> Iterator[str]:
    url = databases.lend(_prepared)
    yield url
    databases.take_back(url)


@pytest.fixture
async def straight(noted_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that may always write."""
    connection = await asyncpg.connect(noted_url)
    yield connection
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {await name_of(connection)} RESET ALL")
    await connection.close()


async def name_of(connection: asyncpg.Connection) -> str:
    return str(await connection.fetchval("SELECT quote_ident(current_database())"))


async def set_for_all(connection: asyncpg.Connection, setting: str, value: str) -> None:
    """As a provider does, or an administrator: for the sessions that begin from now on."""
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER DATABASE {await name_of(connection)} SET {setting} = '{value}'")
    await connection.execute(TERMINATE)


Handler = Callable[[Context], Any]


@asynccontextmanager
async def handling(bus: EventBus, handler: Handler, attempts: int = 1) -> AsyncIterator[list[int]]:
    """A worker whose handler does this, and the attempts that it began."""
    group, began = Group("notes", retry=RetryPolicy(attempts=attempts, backoff=Backoff.fixed(0.01))), list[int]()

    @group.on(Wanted)
    async def note(_event: Wanted, ctx: Context) -> None:
        began.append(ctx.attempt)
        await handler(ctx)

    @group.on(Noted)
    async def ignore(_event: Noted, _ctx: Context) -> None:
        pass

    worker = Worker(bus, [group])
    working = asyncio.create_task(worker.run(signals=False))
    try:
        yield began
    finally:
        await worker.stop()
        await working


async def note(ctx: Context) -> None:
    async with ctx.transaction() as tx:
        await tx.connection.execute("INSERT INTO noted VALUES ($1)", ctx.attempt)
        await tx.publish(Noted())


async def dead(bus: EventBus) -> list[str]:
    """Why events are dead letters."""
    return [letter.error for letter in await bus.transport.dead_letters("want")]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "UNAVAILABLE_SNOOZE", 0.05)


async def test_a_read_only_server_costs_no_attempt(
    noted_url: str, straight: asyncpg.Connection, redis_url: str
) -> None:
    async with EventBus(redis_url, database=noted_url) as bus:
        with capture_logs() as lines:
            async with handling(bus, note) as began:
                await set_for_all(straight, "default_transaction_read_only", "on")
                await bus.publish_many([Wanted() for _ in range(20)])
                await until(lambda: len(began) > 60)
                with pytest.raises(Unavailable, match="read-only transaction"):
                    async with bus.transaction() as tx:
                        await tx.publish(Noted())
                assert [line["event"] for line in lines if "postgresql is" in line["event"]] == ["postgresql is away"]
                await set_for_all(straight, "default_transaction_read_only", "off")
                await eventually(lambda: straight.fetchval("SELECT count(*) = 20 FROM noted"))
                await eventually(lambda: all_published(straight))
        assert await dead(bus) == []
    assert set(began) == {1}


async def all_published(straight: asyncpg.Connection) -> bool:
    return bool(await straight.fetchval("SELECT count(*) = 0 FROM eventbus_outbox WHERE published_at IS NULL"))


@pytest.mark.parametrize("begun", ["SET TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"])
async def test_a_handler_that_wants_to_read_only_fails_by_itself(noted_url: str, redis_url: str, begun: str) -> None:
    async def promise(ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute(begun)
            if "SESSION" in begun:
                await tx.connection.execute("COMMIT; BEGIN")
            await tx.connection.execute("INSERT INTO noted VALUES (1)")

    async with EventBus(redis_url, database=noted_url) as bus:
        await bus.publish(Wanted())
        async with handling(bus, promise):
            await eventually(lambda: dead(bus))
        assert "ReadOnlySQLTransactionError: cannot execute INSERT in a read-only transaction" in (await dead(bus))[0]


@pytest.mark.parametrize("code", ["53100", "53200", "57P02", "57P03", "58030"])
async def test_a_server_that_cannot_write_is_away_and_its_connection_is_not_used_again(
    noted_url: str, code: str
) -> None:
    database = Database(noted_url, pool_size=1)
    await database.connect()
    backends = []

    async def use() -> None:
        async with database.transaction() as tx:
            backends.append(await tx.connection.fetchval("SELECT pg_backend_pid()"))
            await tx.connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'spent' USING ERRCODE = '{code}'; END $$")

    try:
        for _ in range(2):
            with pytest.raises(Unavailable, match="spent") as caught:
                await use()
            assert not caught.value.lost, "the session's end is nobody's doing"
        assert len(set(backends)) == 2
    finally:
        await database.close()


async def stand_idle(tx: Any, straight: asyncpg.Connection) -> None:
    backend = await tx.connection.fetchval("SELECT pg_backend_pid()")
    gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"
    await eventually(lambda: straight.fetchval(gone, backend))
    await tx.connection.execute("INSERT INTO noted VALUES (1)")


async def take_long(tx: Any, _straight: asyncpg.Connection) -> None:
    await tx.connection.execute("SELECT pg_sleep(80)")


@pytest.mark.parametrize(
    ("setting", "act"),
    [
        ("idle_in_transaction_session_timeout", stand_idle),
        ("transaction_timeout", stand_idle),
        ("transaction_timeout", take_long),
    ],
)
async def test_a_session_that_is_ended_for_what_the_handler_does_is_its_failure(
    noted_url: str, straight: asyncpg.Connection, redis_url: str, setting: str, act: Any
) -> None:
    async def idle(ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await act(tx, straight)

    await set_for_all(straight, setting, "300ms")
    async with EventBus(redis_url, database=noted_url) as bus:
        await bus.publish(Wanted())
        async with handling(bus, idle, attempts=2) as began:
            await eventually(lambda: dead(bus))
        [reason] = await dead(bus)
    assert reason.startswith(SessionEnded.__name__)
    assert setting.split("_", maxsplit=1)[0] in reason
    assert began == [1, 2]


async def test_a_handler_that_ends_its_own_session_each_time_ends_as_a_dead_letter(
    noted_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(lost_sessions, "LIMIT", 3)
    async with EventBus(redis_url, database=noted_url) as bus:
        await bus.publish(Wanted())
        async with handling(bus, end, attempts=2) as began:
            await eventually(lambda: dead(bus))
        [reason] = await dead(bus)
    assert reason.startswith("SessionEnded: the session with PostgreSQL ended 5 times in a row while this ran: ")
    assert began == [1, 1, 1, 1, 2]


async def test_a_table_that_is_altered_under_a_handler_costs_no_attempt(
    noted_url: str, straight: asyncpg.Connection, redis_url: str
) -> None:
    async def read(ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.fetch("SELECT * FROM noted")
            await tx.connection.fetch("INSERT INTO noted VALUES ($1) RETURNING *", ctx.attempt)

    async with EventBus(redis_url, database=noted_url, database_pool_size=1) as bus:
        async with handling(bus, read) as began:
            for number in range(1, 4):
                await bus.publish(Wanted())
                await eventually(lambda: straight.fetchval("SELECT count(*) = $1 FROM noted", number))  # noqa: B023
                await straight.execute(f"ALTER TABLE noted ADD COLUMN more{number} int")
        assert await dead(bus) == []
    assert len(began) > 3, "no statement was in the way: this proves nothing"
