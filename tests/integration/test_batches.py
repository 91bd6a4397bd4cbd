"""A batch's transaction, on PostgreSQL."""

from collections.abc import AsyncIterator
from importlib.resources import files

import asyncpg
import pytest

from eventbus import Batch, Context, Event, EventBus, Item
from eventbus.contract.codec import envelop
from eventbus.errors import ConfigurationError, Reject
from eventbus.event import Origin
from eventbus.postgres import apply, load


class Counted(Event, type="batch.counted"):
    number: int


class Summed(Event, type="batch.summed"):
    number: int


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await apply(connection, load("eventbus", files("eventbus.postgres") / "migrations"))
    await connection.execute("CREATE TABLE sums (number int)")  # nothing unique: duplicates are to be counted
    yield connection
    await connection.close()


@pytest.fixture
async def bus(connection: asyncpg.Connection, database_url: str) -> AsyncIterator[EventBus]:
    async with EventBus("memory://", database=database_url) as bus:
        yield bus


ENVELOPES = [envelop(Counted(number=number), Origin(correlation_id=f"c{number}")) for number in range(6)]


def batch_of(bus: EventBus, *numbers: int) -> Batch[Counted]:
    items = [Item(Counted(number=number), Context(bus, ENVELOPES[number], "sums", 1)) for number in numbers]
    return Batch(bus, items)


async def add_up(batch: Batch[Counted], *failing: int) -> list[int]:
    """What an idempotent handler does; returns what it found to be new."""
    async with batch.transaction() as tx:
        for item in tx.items:
            await tx.connection.execute("INSERT INTO sums VALUES ($1)", item.event.number)
            await tx.outbox(item).publish(Summed(number=item.event.number))
            if item.event.number in failing:
                item.fail(Reject("no"))
        return [item.event.number for item in tx.items]


async def published(connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """Data and correlation id of what is in the outbox, in order."""
    rows = await connection.fetch("SELECT data, meta::json ->> 'correlationId' AS id FROM eventbus_outbox ORDER BY id")
    return [(row["data"], row["id"]) for row in rows]


async def test_effects_events_and_inbox_rows_commit_together_and_once(
    bus: EventBus, connection: asyncpg.Connection
) -> None:
    assert await add_up(batch_of(bus, 0, 1, 2)) == [0, 1, 2]
    assert await add_up(batch_of(bus, 1, 2, 3, 4)) == [3, 4]
    assert await add_up(batch_of(bus, 4, 0)) == []
    assert [row["number"] for row in await connection.fetch("SELECT number FROM sums")] == [0, 1, 2, 3, 4]
    assert await published(connection) == [(f'{{"number":{n}}}', f"c{n}") for n in range(5)]


async def test_nothing_is_kept_of_a_block_that_raises(bus: EventBus, connection: asyncpg.Connection) -> None:
    async def fall(batch: Batch[Counted]) -> None:
        async with batch.transaction() as tx:
            await tx.connection.execute("INSERT INTO sums VALUES (0)")
            await tx.outbox(tx.items[0]).publish(Summed(number=0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fall(batch_of(bus, 0, 1))
    assert await add_up(batch_of(bus, 0, 1)) == [0, 1]
    assert len(await published(connection)) == 2


async def test_what_fails_inside_the_block_is_new_again_and_what_it_led_to_is_not_published(
    bus: EventBus, connection: asyncpg.Connection
) -> None:
    assert await add_up(batch_of(bus, 0, 1, 2), 1) == [0, 1, 2]
    assert [data for data, _ in await published(connection)] == ['{"number":0}', '{"number":2}']
    assert await add_up(batch_of(bus, 0, 1, 2)) == [1]


async def test_an_event_that_was_stored_twice_is_new_once(bus: EventBus) -> None:
    assert await add_up(batch_of(bus, 0, 1, 0)) == [0, 1]


async def test_groups_and_single_handlers_share_the_inbox(bus: EventBus) -> None:
    async with Context(bus, ENVELOPES[0], "sums", 1).transaction() as single:
        await single.connection.execute("SELECT 1")
    async with Context(bus, ENVELOPES[1], "others", 1).transaction() as other:
        await other.connection.execute("SELECT 1")
    assert await add_up(batch_of(bus, 0, 1)) == [1]


async def test_an_event_has_one_transaction(bus: EventBus) -> None:
    batch = batch_of(bus, 0, 1)
    await add_up(batch)
    with pytest.raises(ConfigurationError, match="one transaction"):
        await add_up(batch)
    batch = batch_of(bus, 2, 3)
    async with batch[0].ctx.transaction() as tx:
        await tx.connection.execute("SELECT 1")
    with pytest.raises(ConfigurationError, match="one transaction"):
        await add_up(batch)


async def test_what_was_done_before_publishes_nothing(bus: EventBus) -> None:
    await add_up(batch_of(bus, 0))
    batch = batch_of(bus, 0, 1)
    async with batch.transaction() as tx:
        with pytest.raises(ConfigurationError, match=r"is not in tx\.items"):
            tx.outbox(batch[0])


async def test_without_a_database_it_says_what_is_missing() -> None:
    async with EventBus("memory://") as bus:
        with pytest.raises(ConfigurationError, match="this needs PostgreSQL"):
            await add_up(batch_of(bus, 0))
