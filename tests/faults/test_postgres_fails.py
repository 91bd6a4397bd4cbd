"""Fault 11: PostgreSQL is killed, ends its sessions, has no second connection, or prefers another transaction."""

import asyncio

import asyncpg
import pytest

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.postgres import Database
from tests.faults.conftest import ArenaFactory
from tests.faults.history import check
from tests.proxy import Proxy
from tests.servers import OwnPostgres
from tests.waiting import PATIENCE, until

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_a_postgresql_killed_under_load_costs_no_effect_and_no_attempt(
    own_postgres: OwnPostgres, arena_on: ArenaFactory, redis_url: str
) -> None:
    postgres = own_postgres()
    arena = arena_on(redis_url, postgres.url)
    async with EventBus(redis_url) as bus:
        for _ in range(2):
            arena.fleet.start()
        warm_up = await arena.at_work(bus)
        publishing = asyncio.create_task(arena.publish_all(bus, range(1, 301), per_second=150))
        await arena.runs(warm_up + 50)
        await asyncio.to_thread(postgres.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.start)
        await publishing
        observed = await arena.settled(bus, warm_up + 300)
    check(observed, attempts=1)
    assert all(process.poll() is None for process in arena.fleet.processes), "no worker may exit on a blip"


async def test_sessions_that_are_ended_all_the_time_cost_no_effect_and_no_attempt(
    arena_on: ArenaFactory, redis_url: str
) -> None:
    arena = arena_on(redis_url)
    async with EventBus(redis_url) as bus:
        for _ in range(2):
            arena.fleet.start()
        warm_up = await arena.at_work(bus)
        publishing = asyncio.create_task(arena.publish_all(bus, range(1, 301), per_second=150))
        connection = await asyncpg.connect(arena.database_url)
        while not publishing.done():
            await connection.execute(TERMINATE)
            await asyncio.sleep(0.1)
        await connection.close()
        observed = await arena.settled(bus, warm_up + 300)
    check(observed, attempts=1)
    assert all(process.poll() is None for process in arena.fleet.processes), "no worker may exit on a blip"


class Counted(Event, type="tally.counted"):
    """Adds one to the tally."""


def counting(**options: object) -> tuple[Group, list[int]]:
    """A group that reads a number and writes the next one, and the attempts that it ran."""
    policy = RetryPolicy(attempts=3, backoff=Backoff.fixed(0.05))
    group, attempts = Group("counters", retry=policy, **options), list[int]()  # type: ignore[arg-type]

    @group.on(Counted)
    async def count(_event: Counted, ctx: Context) -> None:
        attempts.append(ctx.attempt)
        async with ctx.transaction() as tx:
            before = await tx.connection.fetchval("SELECT n FROM tally")
            await asyncio.sleep(0.002)
            await tx.connection.execute("UPDATE tally SET n = $1", before + 1)

    return group, attempts


async def tally(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT n FROM tally"))
    finally:
        await connection.close()


@pytest.fixture
async def tally_url(arena_on: ArenaFactory, redis_url: str) -> str:
    url = arena_on(redis_url).database_url
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE tally (n int); INSERT INTO tally VALUES (0)")
    await connection.close()
    return url


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_transactions_that_collide_are_done_again_as_a_whole(tally_url: str, redis_url: str, level: str) -> None:
    connection = await asyncpg.connect(tally_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    await connection.close()
    group, attempts = counting(concurrency=4)
    async with EventBus(redis_url, database=tally_url) as bus:
        await bus.publish_many([Counted() for _ in range(60)])
        worker = Worker(bus, [group])
        working = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            while await tally(tally_url) < 60:
                await asyncio.sleep(0.05)
        await worker.stop()
        await working
        assert await bus.transport.dead_letters("tally") == []
    assert await tally(tally_url) == 60
    assert len(attempts) > 60, "nothing collided: this run proves nothing"


async def test_a_pool_of_one_connection_is_enough(tally_url: str, redis_url: str) -> None:
    """Twenty handlers wait in line for it, and none of them for ever."""
    group, attempts = counting(concurrency=20)
    async with EventBus(redis_url) as bus:
        bus.database = Database(tally_url, pool_size=1)
        await bus.database.connect()
        await bus.publish_many([Counted() for _ in range(100)])
        worker = Worker(bus, [group])
        working = asyncio.create_task(worker.run())
        await until(lambda: len(attempts) >= 100)
        await worker.stop()
        await working
    assert await tally(tally_url) == 100
    assert attempts == [1] * 100


async def test_a_commit_without_an_answer_is_resolved_by_the_inbox(tally_url: str, redis_url: str) -> None:
    """It may have taken place or not: the second delivery finds out, and adds nothing twice."""
    group, attempts = counting(concurrency=1)
    async with Proxy(tally_url) as proxy, EventBus(redis_url, database=proxy.url) as bus:
        worker = Worker(bus, [group], relay=False)
        working = asyncio.create_task(worker.run())
        for number in range(1, 4):
            lost = proxy.lose_reply_to(b"COMMIT")
            await bus.publish(Counted())
            await lost.wait()
            await until(lambda number=number: len(attempts) >= 2 * number)  # type: ignore[misc]
        await worker.stop()
        await working
        assert await bus.transport.dead_letters("tally") == []
    assert await tally(tally_url) == 3
    assert attempts == [1] * 6, "a server that was away costs no attempt"
