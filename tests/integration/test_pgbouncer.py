"""Through PgBouncer, in session and in transaction mode, with nothing but the URL changed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from eventbus import Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.contract.history import Selection
from eventbus.errors import ConfigurationError, Unavailable
from eventbus.postgres import Database
from eventbus.roles.history_group import recorder
from tests.integration.commands import eventbus_here
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.waiting import PATIENCE, eventually, until

# Few sessions of the server for many connections; in session mode each connection has one while it is open.
SESSIONS = {"transaction": "4", "session": "20"}


class Ordered(Event, type="pooled.placed"):
    number: int


class Packed(Event, type="parcel.packed"):
    number: int


@pytest.fixture(params=["transaction", "session"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bouncer(mode: str, migrated_url: str, tmp_path: Path) -> Iterator[PgBouncer]:
    with pgbouncer(tmp_path, migrated_url, pool_mode=mode, default_pool_size=SESSIONS[mode]) as running:
        yield running


def ordering() -> tuple[Group, list[int]]:
    """Each order makes a row and an event, which another handler reads; one attempt is all that either has."""
    group, attempts = Group("orders", retry=RetryPolicy(attempts=1), concurrency=20), list[int]()

    @group.on(Ordered)
    async def order(event: Ordered, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO ordered VALUES ($1)", event.number)
            assert await tx.connection.fetchval("SELECT count(*) FROM ordered WHERE number = $1", event.number) == 1
            await tx.publish(Packed(number=event.number))

    @group.on(Packed)
    async def pack(event: Packed, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO packed SELECT number FROM ordered WHERE number = $1", event.number)

    return group, attempts


@asynccontextmanager
async def at_work(bus: EventBus, *groups: Group) -> AsyncIterator[None]:
    worker = Worker(bus, list(groups))
    working = asyncio.create_task(worker.run(signals=False))
    try:
        yield
    finally:
        await worker.stop()
        await working


async def numbers(straight: asyncpg.Connection, table: str) -> list[int]:
    return [row["number"] for row in await straight.fetch(f"SELECT number FROM {table} ORDER BY number")]


@pytest.fixture
async def straight(migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Past the pooler, with the tables of the handlers."""
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("CREATE TABLE ordered (number int); CREATE TABLE packed (number int)")
    yield connection
    await connection.close()


async def test_three_hundred_transactions_flow_through_few_sessions(
    bouncer: PgBouncer, straight: asyncpg.Connection, redis_url: str
) -> None:
    group, attempts = ordering()
    async with EventBus(redis_url, database=bouncer.url, history=timedelta(days=30)) as bus:
        async with at_work(bus, group, recorder()):
            for number in range(150):
                async with bus.transaction() as tx:
                    await tx.publish(Ordered(number=number))
            async with asyncio.timeout(PATIENCE):
                while len(await numbers(straight, "packed")) < 150:
                    await asyncio.sleep(0.05)
                await eventually(lambda: recorded(bus))
        for stream in ("pooled", "parcel"):
            assert await bus.transport.dead_letters(stream) == []
    assert await numbers(straight, "ordered") == await numbers(straight, "packed") == list(range(150))
    assert set(attempts) == {1}, "who waits for a session may be put off, and spends no attempt"
    await eventually(lambda: straight.fetchval(_NO_LOCK))  # the pooler ends what was given up


_NO_LOCK = """
SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def recorded(bus: EventBus) -> bool:
    return await bus.history.count(Selection(types=("pooled.*", "parcel.*"))) == 300


async def test_a_pooler_that_restarts_under_load_costs_no_attempt(
    bouncer: PgBouncer, straight: asyncpg.Connection, redis_url: str
) -> None:
    group, attempts = ordering()
    async with EventBus(redis_url, database=bouncer.url) as bus:
        async with at_work(bus, group):
            publishing = asyncio.create_task(publish_all(bus, 150))
            for share in (20, 60):
                await until(lambda: len(attempts) >= share)  # noqa: B023 - it is awaited here
                await asyncio.to_thread(bouncer.stop)
                await asyncio.to_thread(bouncer.start)
            await publishing
            async with asyncio.timeout(PATIENCE):
                while len(await numbers(straight, "packed")) < 150:
                    await asyncio.sleep(0.05)
        for stream in ("pooled", "parcel"):
            assert await bus.transport.dead_letters(stream) == []
    assert await numbers(straight, "ordered") == await numbers(straight, "packed") == list(range(150))
    assert set(attempts) == {1}


async def publish_all(bus: EventBus, count: int) -> None:
    """As a request would that is sent again: whether a commit without an answer took place is asked of the outbox."""
    for number in range(count):
        while True:
            try:
                async with bus.transaction() as tx:
                    known = "SELECT count(*) FROM eventbus_outbox WHERE data = $1"
                    if not await tx.connection.fetchval(known, f'{{"number":{number}}}'):
                        await tx.publish(Ordered(number=number))
                break
            except Unavailable:
                await asyncio.sleep(0.05)


async def test_two_relays_take_turns(bouncer: PgBouncer, straight: asyncpg.Connection, redis_url: str) -> None:
    """The one that stands by takes over as soon as the first has ended."""
    group, _ = ordering()
    async with EventBus(redis_url, database=bouncer.url) as bus, EventBus(redis_url, database=bouncer.url) as other:
        async with at_work(bus, group):
            await eventually(lambda: relays(straight))
            async with at_work(other, ordering()[0]):
                await asyncio.sleep(0.6)  # in which the second asks for the lock, and must not have it
                assert await relays(straight) == 1
                async with bus.transaction() as tx:
                    await tx.publish(Ordered(number=1))
                await eventually(lambda: numbers(straight, "packed"))
        async with at_work(other, group):
            async with other.transaction() as tx:
                await tx.publish(Ordered(number=2))
            async with asyncio.timeout(PATIENCE):
                while await numbers(straight, "packed") != [1, 2]:
                    await asyncio.sleep(0.02)


async def relays(straight: asyncpg.Connection) -> int:
    """Relays that are at work."""
    count: int = await straight.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
    )
    return count


def test_migrating_and_looking_go_through_it(mode: str, database_url: str, tmp_path: Path, redis_url: str) -> None:
    with pgbouncer(tmp_path, database_url, pool_mode=mode, default_pool_size="4") as running:
        first = eventbus_here("migrate", EVENTBUS_DATABASE_URL=running.url)
        again = eventbus_here("migrate", EVENTBUS_DATABASE_URL=running.url)
        assert first.returncode == again.returncode == 0, first.stderr + again.stderr
        assert again.stdout.startswith("0 applied")
        assert first.stdout.startswith("applied eventbus/0001")
        for command in (("outbox", "list"), ("doctor",), ("status",)):
            run = eventbus_here(*command, EVENTBUS_DATABASE_URL=running.url, EVENTBUS_REDIS_URL=redis_url)
            assert "Error" not in run.stderr, run.stderr


async def test_a_schema_is_kept_to_in_each_transaction(
    mode: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgbouncer(tmp_path, database_url, pool_mode=mode, default_pool_size="4") as running:
        for schema in ("one", "two"):
            run = await asyncio.to_thread(
                eventbus_here, "migrate", EVENTBUS_DATABASE_URL=running.url, EVENTBUS_DATABASE_SCHEMA=schema
            )
            assert run.returncode == 0, run.stderr
            assert "applied eventbus/0001" in run.stdout
        one, two = (Database(running.url, schema=schema) for schema in ("one", "two"))
        await asyncio.gather(one.connect(), two.connect())
        for number, database in ((3, one), (5, two)):
            for _ in range(number):
                async with database.transaction() as tx:
                    await tx.publish(Ordered(number=number))
        for number, database in ((3, one), (5, two)):
            assert await database.unpublished() == number
        await asyncio.gather(one.close(), two.close())


async def test_a_parameter_that_it_does_not_take_is_named(bouncer: PgBouncer) -> None:
    with capture_logs(), pytest.raises(ConfigurationError, match=r"statement_cache_size.*STATEMENT_CACHE"):
        await Database(f"{bouncer.url}&statement_cache_size=0").connect()


async def test_a_transaction_that_was_left_open_is_cut_without_an_error_in_the_log(bouncer: PgBouncer) -> None:
    """As by who is cancelled while his COMMIT is on its way, and again while that is rolled back. Any statement has one
    here."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["message"]))
    database = Database(bouncer.url, pool_size=1)
    await database.connect()
    async with database.connection() as connection:
        await connection.execute("BEGIN")
    async with database.connection() as connection:
        assert not connection.is_in_transaction()
        assert await connection.fetchval("SELECT 1") == 1
    await database.close()
    assert told == []
