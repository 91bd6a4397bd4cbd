"""The way from the outbox to the streams: every committed event, once, in order."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from eventbus import Event
from eventbus.contract.outgoing import Outgoing
from eventbus.errors import Unavailable
from eventbus.event import Status
from eventbus.postgres import Database
from eventbus.postgres import relay as module
from eventbus.postgres.relay import Relay
from eventbus.redis import RedisTransport
from tests.proxy import Proxy
from tests.samples import consumer, nothing_left, reclaim
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually, until


class Filed(Event, type="paper.filed"):
    number: int


READER = consumer("ann", group="archive", stream="paper")


class Breakable(RedisTransport):
    """Loses the reply of an append, or is away, when it is told to."""

    lose_replies = 0
    away = False
    appends = 0

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        self.appends += 1
        if self.away:
            raise Unavailable("Redis", "gone")
        statuses = await super().append(outgoing, again=again)
        if self.lose_replies:
            self.lose_replies -= 1
            raise Unavailable("Redis", "the reply was lost")
        return statuses


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 0.02)


@pytest.fixture
async def transport(redis_url: str) -> AsyncIterator[Breakable]:
    transport = Breakable(redis_url)
    yield transport
    await transport.close()


@asynccontextmanager
async def relaying(url: str, transport: RedisTransport) -> AsyncIterator[asyncio.Task[None]]:
    running = asyncio.create_task(Relay(url, transport).run())
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def file(database: Database, *numbers: int, delay: float | None = None, at: datetime | None = None) -> None:
    async with database.transaction() as tx:
        for number in numbers:
            await tx.publish(Filed(number=number), delay=delay, at=at)


async def waiting(database: Database) -> int:
    async with database.connection() as connection:
        count: int = await connection.fetchval("SELECT count(*) FROM eventbus_outbox WHERE published_at IS NULL")
        return count


async def read(transport: RedisTransport, count: int) -> list[int]:
    """The numbers that arrive, and that no more do."""
    arrived: list[int] = []

    async def enough() -> bool:
        deliveries = await transport.read(READER, 1000, 0.2)
        arrived.extend(int(delivery.fields[b"data"][len(b'{"number":') : -1]) for delivery in deliveries)
        return len(arrived) >= count

    await eventually(enough)
    assert await transport.read(READER, 1000, 0.1) == []
    return arrived


async def test_committed_events_arrive_in_order(database: Database, migrated_url: str, transport: Breakable) -> None:
    await file(database, *range(1200))
    async with relaying(migrated_url, transport):
        await file(database, 1200, 1201)
        assert await read(transport, 1202) == list(range(1202))
        await eventually(lambda: nothing_waits(database))


async def test_a_transaction_that_commits_late_is_not_skipped(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    """Its rows have the lower positions, and are not to be seen when the relay passes by."""
    async with relaying(migrated_url, transport), database.connection() as connection:
        async with connection.transaction():
            await database.outbox(connection).publish(Filed(number=1))
            await file(database, 2)
            assert await read(transport, 1) == [2]
        assert await read(transport, 1) == [1]


async def test_what_is_rolled_back_never_arrives(database: Database, migrated_url: str, transport: Breakable) -> None:
    async def fail() -> None:
        async with database.transaction() as tx:
            await tx.publish(Filed(number=1))
            raise ValueError("no")

    async with relaying(migrated_url, transport):
        with pytest.raises(ValueError, match="no"):
            await fail()
        await file(database, 2)
        assert await read(transport, 1) == [2]


async def test_a_lost_reply_stores_nothing_twice(database: Database, migrated_url: str, transport: Breakable) -> None:
    transport.lose_replies = 3
    await file(database, *range(20))
    async with relaying(migrated_url, transport):
        assert await read(transport, 20) == list(range(20))
        await eventually(lambda: nothing_waits(database))
        await file(database, 20)
        assert await read(transport, 1) == [20]


async def test_a_relay_that_died_between_append_and_mark_stores_nothing_twice(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    await file(database, *range(20))
    monkeypatch.setattr(module, "_MARK", "SELECT pg_sleep(60) WHERE $1::bigint[] IS NOT NULL")
    async with relaying(migrated_url, transport):
        assert await read(transport, 20) == list(range(20))
    assert await waiting(database) == 20
    monkeypatch.undo()
    async with relaying(migrated_url, transport):
        await eventually(lambda: nothing_waits(database))
    assert await transport.read(READER, 100, 0.1) == []


async def test_of_many_relays_one_works_and_another_takes_over(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    async with relaying(migrated_url, transport) as first:
        await file(database, 1)
        assert await read(transport, 1) == [1]
        async with relaying(migrated_url, transport), relaying(migrated_url, transport):
            for number in range(20):
                await file(database, number)
            assert await read(transport, 20) == list(range(20))
            appends = transport.appends
            first.cancel()
            await file(database, 100)
            assert await read(transport, 1) == [100]
            assert transport.appends == appends + 1


async def test_the_outbox_waits_for_redis_and_says_so_once(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    transport.away = True
    with capture_logs() as lines:
        async with relaying(migrated_url, transport):
            await file(database, 1, 2)
            await until(lambda: transport.appends >= 5)
            transport.away = False
            assert await read(transport, 2) == [1, 2]
            await eventually(lambda: nothing_waits(database))
    told = [line["event"] for line in lines if line["log_level"] != "debug" and "outbox" in line["event"]]
    assert told == ["the outbox is not relayed", "the outbox is relayed again"]


async def test_a_terminated_session_is_opened_again(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    async with relaying(migrated_url, transport):
        for number in range(3):
            await file(database, number)
            assert await read(transport, 1) == [number]
            await terminate_others(database)


async def test_a_session_whose_end_is_told_late_is_opened_again(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    """Between the server's farewell and the end of the connection, asyncpg has an error of another kind."""
    async with Proxy(migrated_url) as proxy, relaying(proxy.url, transport) as running:
        proxy.linger = 0.5
        for number in range(3):
            await file(database, number)
            assert await read(transport, 1) == [number]
            await terminate_others(database)
        assert not running.done()


async def test_a_relay_outlives_what_nobody_has_foreseen(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "envelope_of", lambda row: row["what was never there"])
    with capture_logs() as lines:
        async with relaying(migrated_url, transport):
            await file(database, 1)
            await until(lambda: any(line["event"] == "the outbox is not relayed" for line in lines))
            monkeypatch.undo()
            assert await read(transport, 1) == [1]
    [told] = [line for line in lines if line["event"] == "the outbox is not relayed"]
    assert isinstance(told["exc_info"], KeyError), "what is not foreseen is told with its traceback"


async def terminate_others(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_database_without_tables_is_waited_for(database_url: str, transport: Breakable) -> None:
    async with relaying(database_url, transport) as running:
        await asyncio.sleep(0.2)
        assert not running.done()


async def test_a_moment_is_kept_on_the_way(database: Database, migrated_url: str, transport: Breakable) -> None:
    now = datetime.now(UTC)
    await file(database, 1, at=now + timedelta(seconds=0.5))
    await file(database, 2, at=now - timedelta(hours=1))
    async with database.transaction() as tx:
        await database.outbox(tx.connection).publish(Filed(number=3), at=now + timedelta(minutes=1))
        with pytest.raises(ValueError, match="which time zone"):
            await tx.publish(Filed(number=4), at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the mistake
    async with relaying(migrated_url, transport):
        await eventually(lambda: nothing_waits(database))
        assert await reclaim(transport, READER, 0) == []
        # Sorted: a relay that begins only when the first is due finds both to be told now, in the order of filing.
        assert sorted(await read(transport, 2)) == [1, 2]
    assert (datetime.now(UTC) - now).total_seconds() >= 0.5
    next_due = (await transport.reclaim(READER, 1)).next_due
    assert next_due is not None
    assert 0 < next_due < 60


async def test_a_delay_counts_from_the_writing(database: Database, migrated_url: str, transport: Breakable) -> None:
    with Stopwatch() as watch:
        await file(database, 1, delay=2.0)
        await file(database, 2, delay=600.0)
        await asyncio.sleep(1.0)
        async with relaying(migrated_url, transport):
            await eventually(lambda: nothing_waits(database))
            assert await reclaim(transport, READER, 0) == []
            assert await read(transport, 1) == [1]
            assert watch.passed >= 2.0
            assert watch.seconds < 3.0, "counted from the relaying it took so long at least"
        next_due = (await transport.reclaim(READER, 1)).next_due
    assert next_due is not None
    assert 599 - watch.passed < next_due < 599, "one second had passed before it was relayed"


async def test_what_is_old_is_deleted_even_under_load(
    database: Database, migrated_url: str, transport: Breakable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRUNE_BATCH", 10)
    monkeypatch.setattr(module, "PRUNE_INTERVAL", 0.05)
    monkeypatch.setattr(module, "PRUNE_PAUSE", 0.01)
    await file(database, *range(35))
    async with database.connection() as connection:
        await connection.execute("UPDATE eventbus_outbox SET published_at = now() - $1::interval", timedelta(days=8))
        await connection.execute(
            "INSERT INTO eventbus_inbox SELECT event_id, 'g', published_at FROM eventbus_outbox "
            "UNION ALL SELECT event_id, 'fresh', now() FROM eventbus_outbox"
        )
    published = 0
    async with relaying(migrated_url, transport):
        async with asyncio.timeout(PATIENCE):
            while await rows(database) != (0, 35):
                await file(database, published)
                published += 1
        assert len(await read(transport, published)) == published
        assert await nothing_left(transport, READER)


async def rows(database: Database) -> tuple[int, int]:
    """Old events of the outbox, and what is in the inbox."""
    async with database.connection() as connection:
        old = await connection.fetchval(
            "SELECT count(*) FROM eventbus_outbox WHERE published_at < now() - '1 day'::interval"
        )
        return old, await connection.fetchval("SELECT count(*) FROM eventbus_inbox")


async def nothing_waits(database: Database) -> bool:
    return await waiting(database) == 0


async def test_a_dedupe_key_travels_through_the_outbox_and_outlives_a_lost_reply(
    database: Database, migrated_url: str, transport: Breakable
) -> None:
    async with database.transaction() as tx:
        for number in range(3):
            await tx.publish(Filed(number=number), dedupe_key="k", dedupe_window=60.0)
        await tx.publish(Filed(number=3), delay=60.0, dedupe_key="late", dedupe="replace")
        await tx.publish(Filed(number=4), delay=0.02, dedupe_key="late", dedupe="replace")
    transport.lose_replies = 2
    async with relaying(migrated_url, transport):
        await eventually(lambda: nothing_waits(database))
        assert sorted(await read(transport, 2)) == [0, 4]
    assert transport.appends >= 3
