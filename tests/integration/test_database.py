"""Rows and events commit together; an effect happens once for each event; a server that is away is no error of ours."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from eventbus import Event, EventBus
from eventbus.contract.transaction import Transaction
from eventbus.errors import CodecError, ConfigurationError, Conflict, PoolExhausted, Unavailable
from eventbus.event import Origin, uuid7
from eventbus.postgres import Database
from eventbus.postgres import database as module
from eventbus.postgres.outbox import envelope_of
from eventbus.settings import POOL_SIZE
from tests.proxy import Proxy
from tests.servers import OwnPostgres
from tests.waiting import eventually


class Paid(Event, type="payment.paid"):
    number: int


EVENT_ID = uuid7()


@pytest.fixture
async def database(database: Database) -> Database:
    """With a table for effects. It has no unique constraint: what happens twice must be seen."""
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE effect (number int)")
    return database


async def effects(database: Database) -> list[int]:
    async with database.connection() as connection:
        return [row["number"] for row in await connection.fetch("SELECT number FROM effect ORDER BY number")]


async def outbox(database: Database) -> list[int]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT * FROM eventbus_outbox ORDER BY position")
    return [int(envelope_of(row).data.decode().removeprefix('{"number":').removesuffix("}")) for row in rows]


async def act(tx: Transaction, number: int) -> None:
    await tx.connection.execute("INSERT INTO effect VALUES ($1)", number)
    await tx.publish(Paid(number=number))


# Outbox ---------------------------------------------------------------------------------------------------------------


async def test_a_row_and_its_event_commit_together(database: Database) -> None:
    async with database.transaction() as tx:
        for number in (1, 2, 3):
            await act(tx, number)
        assert await effects(database) == [], "others see nothing before the commit"
    assert await effects(database) == await outbox(database) == [1, 2, 3]


async def test_a_row_and_its_event_are_rolled_back_together(database: Database) -> None:
    async def change_mind() -> None:
        async with database.transaction() as tx:
            await act(tx, 1)
            raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="changed my mind"):
        await change_mind()
    assert await effects(database) == await outbox(database) == []


async def test_an_event_that_cannot_be_written_takes_its_row_with_it(database: Database) -> None:
    async def publish_too_much() -> None:
        async with database.transaction() as tx:
            await act(tx, 1)
            await tx.connection.execute("CREATE UNIQUE INDEX ON eventbus_outbox (type)")
            await tx.publish(Paid(number=2))

    with pytest.raises(asyncpg.UniqueViolationError):
        await publish_too_much()
    assert await effects(database) == await outbox(database) == []


async def test_events_can_join_a_transaction_that_somebody_else_owns(migrated_url: str) -> None:
    async with EventBus("memory://", database=migrated_url) as bus:
        connection = await asyncpg.connect(migrated_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            event_id = await bus.outbox(connection).publish(Paid(number=1))
            await transaction.rollback()
            assert await connection.fetchval("SELECT count(*) FROM eventbus_outbox") == 0
            async with connection.transaction():
                event_id = await bus.outbox(connection).publish(Paid(number=1))
            assert str(await connection.fetchval("SELECT event_id FROM eventbus_outbox")) == event_id
        finally:
            await connection.close()


async def test_an_envelope_survives_the_outbox(database: Database) -> None:
    origin = Origin("correlation", "cause", "org", "trace", {"user": "ü"})
    async with database.transaction(origin) as tx:
        event_id = await tx.publish(Paid(number=1), key="k\x00\n'", priority=2, delay=60.0)
    async with database.connection() as connection:
        row = await connection.fetchrow("SELECT *, due_at - now() AS wait FROM eventbus_outbox")
    assert row is not None
    envelope = envelope_of(row)
    assert (envelope.id, envelope.type, envelope.subject, envelope.priority) == (
        event_id,
        "payment.paid",
        "k\x00\n'",
        2,
    )
    assert (envelope.correlation_id, envelope.causation_id, envelope.organization) == ("correlation", "cause", "org")
    assert (envelope.traceparent, envelope.metadata) == ("trace", {"user": "ü"})
    assert 55 < row["wait"].total_seconds() <= 60


# Inbox ----------------------------------------------------------------------------------------------------------------


async def deliver(database: Database, number: int = 1, *, group: str = "billing", fail: bool = False) -> list[str]:
    """What a handler with one transaction does, and how far it came."""
    came: list[str] = []
    async with database.inbox(group, EVENT_ID, Origin()) as tx:
        came.append("entered")
        await act(tx, number)
        came.append("acted")
        if fail:
            raise ValueError("no")
    came.append("behind")
    return came


async def test_a_second_delivery_leaves_the_block_at_its_first_use_and_goes_on_behind_it(database: Database) -> None:
    assert await deliver(database) == ["entered", "acted", "behind"]
    assert await deliver(database) == ["entered", "behind"]
    assert await effects(database) == await outbox(database) == [1]


async def test_publishing_is_a_use_too(database: Database) -> None:
    for _ in range(2):
        async with database.inbox("billing", EVENT_ID, Origin()) as tx:
            await tx.publish(Paid(number=1))
    assert await outbox(database) == [1]


async def test_a_delivery_that_failed_leaves_no_mark(database: Database) -> None:
    with pytest.raises(ValueError, match="no"):
        await deliver(database, fail=True)
    assert await effects(database) == []
    assert await deliver(database) == ["entered", "acted", "behind"]
    assert await effects(database) == await outbox(database) == [1]


async def test_each_group_has_an_effect_of_its_own(database: Database) -> None:
    await deliver(database, 1, group="billing")
    await deliver(database, 2, group="shipping")
    assert await effects(database) == [1, 2]


async def test_of_two_concurrent_deliveries_one_acts(database: Database) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.inbox("billing", EVENT_ID, Origin()) as tx:
            await act(tx, 1)
            inside.set()
            await go_on.wait()

    running = asyncio.create_task(first())
    await inside.wait()
    second = asyncio.create_task(deliver(database, 2))
    await eventually(lambda: somebody_waits(database))
    assert not second.done()
    go_on.set()
    await running
    assert await second == ["entered", "behind"]
    assert await effects(database) == await outbox(database) == [1]


async def test_the_second_of_two_acts_if_the_first_fails(database: Database) -> None:
    failing = (deliver(database, number, fail=True) for number in (1, 2))
    await asyncio.gather(*failing, deliver(database, 3), return_exceptions=True)
    assert await effects(database) == await outbox(database) == [3]


async def test_a_swarm_of_deliveries_acts_once(database: Database) -> None:
    await asyncio.gather(*(deliver(database, number) for number in range(20)))
    assert len(await effects(database)) == len(await outbox(database)) == 1


async def test_a_second_delivery_is_left_quietly_from_inside_a_task_group(database: Database) -> None:
    for _ in range(2):
        async with database.inbox("billing", EVENT_ID, Origin()) as tx, asyncio.TaskGroup() as group:
            group.create_task(tx.publish(Paid(number=1)))
    assert await outbox(database) == [1]


async def test_an_error_beside_it_is_not_swallowed(database: Database) -> None:
    await deliver(database)

    async def fail() -> None:
        raise ValueError("beside")

    async def both() -> None:
        async with database.inbox("billing", EVENT_ID, Origin()) as tx, asyncio.TaskGroup() as group:
            group.create_task(tx.publish(Paid(number=1)))
            group.create_task(fail())

    with pytest.raises(BaseExceptionGroup) as caught:
        await both()
    assert caught.group_contains(ValueError)


async def somebody_waits(database: Database) -> bool:
    async with database.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


# A server that is away ------------------------------------------------------------------------------------------------


async def test_a_terminated_session_is_unavailable_and_the_next_one_works(database: Database) -> None:
    async def be_terminated() -> None:
        async with database.transaction() as tx:
            await act(tx, 1)
            async with database.connection() as other:
                await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            await act(tx, 2)

    with pytest.raises(Unavailable, match="PostgreSQL at "):
        await be_terminated()
    assert await effects(database) == await outbox(database) == []
    assert await deliver(database) == ["entered", "acted", "behind"]


async def test_a_session_whose_end_is_told_late_is_unavailable(migrated_url: str, database: Database) -> None:
    """Between the server's farewell and the end of the connection, asyncpg has an error of another kind."""
    async with Proxy(migrated_url) as proxy:
        distant = Database(proxy.url)
        await distant.connect()
        proxy.linger = 60.0

        async def be_terminated() -> None:
            async with distant.transaction() as tx:
                async with database.connection() as other:
                    pid = await tx.connection.fetchval("SELECT pg_backend_pid()")
                    await other.execute("SELECT pg_terminate_backend($1)", pid)
                await asyncio.sleep(0.1)  # the farewell arrives
                await act(tx, 1)

        with pytest.raises(Unavailable, match="PostgreSQL at "):
            await be_terminated()
        await act_once(distant)
        proxy.linger = 0.0
        await distant.close()
    assert await effects(database) == [2]


async def act_once(database: Database) -> None:
    async with database.transaction() as tx:
        await act(tx, 2)


async def test_a_handler_s_own_errors_pass_unchanged(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.transaction():
            raise TimeoutError
    with pytest.raises(OSError, match="disk"):
        async with database.transaction():
            raise OSError("disk")
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.transaction() as tx:
            await tx.connection.execute("SELECT * FROM nowhere")
    async with database.transaction() as tx:
        await act(tx, 1)
    assert await effects(database) == [1]


async def test_an_error_that_the_block_swallows_commits_nothing_and_says_so(database: Database) -> None:
    """PostgreSQL answers the COMMIT of such a transaction with ROLLBACK, and calls that no error."""

    async def swallow() -> None:
        async with database.inbox("billing", EVENT_ID, Origin()) as tx:
            await tx.connection.execute("INSERT INTO effect VALUES (1)")
            with suppress(asyncpg.UndefinedTableError):
                await tx.connection.execute("SELECT * FROM nowhere")

    for _ in range(2):
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await swallow()
    assert await effects(database) == []
    assert await deliver(database) == ["entered", "acted", "behind"]


@pytest.mark.parametrize("code", ["40001", "40P01"])
async def test_a_transaction_that_lost_to_another_is_a_conflict(database: Database, code: str) -> None:
    async def lose() -> None:
        async with database.inbox("billing", EVENT_ID, Origin()) as tx:
            await act(tx, 1)
            await tx.connection.execute(f"DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '{code}'; END $$")

    with pytest.raises(Conflict, match=r"rolled back in favour of another transaction: lost") as caught:
        await lose()
    assert isinstance(caught.value.__cause__, asyncpg.PostgresError)
    assert await effects(database) == await outbox(database) == []
    assert await deliver(database) == ["entered", "acted", "behind"]


async def test_what_is_too_large_is_refused_in_its_transaction(migrated_url: str) -> None:
    async with EventBus("memory://", database=migrated_url, max_payload=12) as bus:

        async def publish(number: int) -> None:
            async with bus.transaction() as tx:
                await tx.publish(Paid(number=number))

        await publish(1)
        with pytest.raises(CodecError, match=r"payment.paid has 13 bytes of JSON and the limit is 12"):
            await publish(10)
        with pytest.raises(CodecError, match="the limit is 12"):
            await bus.publish(Paid(number=10))
        async with bus.transaction() as tx:
            with pytest.raises(CodecError, match="the limit is 12"):
                await bus.outbox(tx.connection).publish(Paid(number=10))


async def test_a_handler_that_is_cancelled_gives_its_connection_back(database: Database) -> None:
    started = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as tx:
            await act(tx, 1)
            started.set()
            await tx.connection.execute("SELECT pg_sleep(60)")

    for _ in range(POOL_SIZE + 2):
        started.clear()
        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        await asyncio.wait([task])
    assert await effects(database) == await outbox(database) == []


async def test_no_free_connection_is_unavailable(migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACQUIRE_TIMEOUT", 0.2)
    small = Database(migrated_url, pool_size=1)
    await small.connect()
    try:
        async with small.connection():
            with pytest.raises(PoolExhausted, match=r"no connection in time: all 1 .* EVENTBUS_DATABASE_POOL"):
                await asyncio.create_task(hold(small, asyncio.Event()))
    finally:
        await small.close()


async def test_a_task_that_would_wait_for_itself_is_told_at_once(migrated_url: str) -> None:
    small = Database(migrated_url, pool_size=2)
    await small.connect()
    try:
        async with small.transaction():
            assert await works(small), "there is another one"
            async with small.transaction():
                with capture_logs() as lines, pytest.raises(ConfigurationError, match="use the open one"):
                    await anext(aiter_of(small))
        holding = asyncio.Event()
        other = asyncio.create_task(hold(small, holding))
        await holding.wait()
        async with small.transaction():
            with pytest.raises(PoolExhausted, match="the task that asks holds one already"):
                await anext(aiter_of(small))
        other.cancel()
        await asyncio.wait([other])
        assert await works(small)
        assert not any(line["event"] == "postgresql is away" for line in lines)
    finally:
        await small.close()


async def aiter_of(database: Database) -> AsyncIterator[None]:
    async with database.connection():
        yield


async def hold(database: Database, holding: asyncio.Event) -> None:
    async with database.connection():
        holding.set()
        await asyncio.Event().wait()


async def test_a_database_that_is_closed_under_a_transaction_does_not_hide_its_errors(migrated_url: str) -> None:
    database = Database(migrated_url)
    await database.connect()

    async def fail() -> None:
        async with database.transaction():
            closing.append(asyncio.create_task(database.close()))
            await asyncio.sleep(0)
            raise ValueError("mine")

    closing: list[asyncio.Task[None]] = []
    with pytest.raises(ValueError, match="mine"):
        await fail()
    await closing[0]


async def test_a_server_that_was_killed_is_unavailable_until_it_is_back(own_postgres: OwnPostgres) -> None:
    server = own_postgres()
    database = Database(server.url)
    await database.connect()
    try:
        server.kill()
        for _ in range(3):
            with pytest.raises(Unavailable):
                async with database.transaction() as tx:
                    await tx.connection.execute("SELECT 1")
        server.start()
        await eventually(lambda: works(database))
        server.pause()
        async with asyncio.timeout(module.ACQUIRE_TIMEOUT * 2 + 2):
            with pytest.raises(Unavailable):
                async with database.transaction() as tx:
                    await tx.connection.execute("SELECT 1")
        server.resume()
        await eventually(lambda: works(database))
    finally:
        server.start()
        await database.close()


async def works(database: Database) -> bool:
    try:
        async with database.transaction() as tx:
            return bool(await tx.connection.fetchval("SELECT true"))
    except Unavailable:
        return False


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database("postgresql://me:secret@127.0.0.1:1/db")
    with pytest.raises(Unavailable) as caught:
        await database.connect()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("part", ["password", "database"])
async def test_a_login_that_is_refused_is_a_configuration_error(own_postgres: OwnPostgres, part: str) -> None:
    url = own_postgres().url
    parts = urlsplit(url)
    wrong: dict[str, Any] = {
        "password": parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":wrong@")),
        "database": parts._replace(path="/nowhere"),
    }
    with pytest.raises(ConfigurationError) as caught:
        await Database(wrong[part].geturl()).connect()
    assert ":wrong" not in str(caught.value)
    assert str(parts.password) not in str(caught.value)


async def test_a_database_that_was_not_connected_says_so() -> None:
    with pytest.raises(ConfigurationError, match="is not connected"):
        async with Database("postgresql://localhost/db").transaction():
            pass


@pytest.fixture
async def plain_bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


async def test_a_bus_without_database_says_what_is_missing(plain_bus: EventBus) -> None:
    with pytest.raises(ConfigurationError, match=r"this needs PostgreSQL: EventBus\(…, database="):
        plain_bus.transaction()


async def test_what_cannot_be_published_is_refused_before_it_is_written(database: Database) -> None:
    wrong: list[dict[str, Any]] = [
        *({"priority": value} for value in (6 / 3, True)),
        *({"key": value} for value in (4711, "\ud83d")),
        {"delay": True},
        {"dedupe_key": 4711},
        {"organization": 4711},
    ]
    fields: list[dict[str, Any]] = [
        *({"correlation_id": value} for value in (4711, "\ud83d")),
        *({"metadata": {"attempt": value}} for value in (1, None)),
    ]
    async with database.transaction() as tx:
        for arguments in wrong:
            for outlet in (tx, database.outbox(tx.connection)):
                with pytest.raises((TypeError, ValueError)):
                    await outlet.publish(Paid(number=0), **arguments)
        await tx.publish(Paid(number=1))
    for each in fields:
        async with database.transaction(Origin(**each)) as tx:
            with pytest.raises((TypeError, ValueError), match="origin"):
                await tx.publish(Paid(number=0))
    assert await outbox(database) == [1]
