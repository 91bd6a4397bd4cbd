"""The group that records: every event that passes, once, whatever it is; and what the groups made of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from eventbus import Backoff, ConfigurationError, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.codec import encode
from eventbus.event import Envelope, uuid7
from eventbus.history import Ending, Selection
from eventbus.postgres import partitions
from eventbus.postgres.history import made
from eventbus.recording import recorder
from eventbus.redis.keys import stream_keys
from eventbus.transport import Outgoing
from tests.waiting import eventually
from tests.working import working

A_YEAR = timedelta(days=365)


class Paid(Event, type="invoice.paid"):
    number: int = 0


class Sent(Event, type="parcel.sent"):
    number: int = 0


@pytest.fixture
async def bus(redis_url: str, migrated_url: str) -> AsyncIterator[EventBus]:
    async with EventBus(redis_url, database=migrated_url, history=A_YEAR) as bus:
        yield bus


@pytest.fixture
async def sql(migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


async def recorded(bus: EventBus, count: int, wanted: Selection = Selection()) -> list[str]:
    """Ids of what is recorded, as soon as it is so many."""

    async def enough() -> bool:
        return await bus.history.count(wanted) >= count

    await eventually(enough)
    return [found.envelope.id for found in await bus.history.select(wanted, limit=count + 1)]


async def test_every_event_of_every_stream_is_recorded_as_it_was_published(bus: EventBus) -> None:
    unknown = Envelope(
        *(uuid7(), "stranger.seen", b'{"no":["class","here"]}', "key", "acme", "c-1", "cause", None, "elsewhere", 2),
        *({"a": "b"}, "another-group", 3, True),
    )
    async with working(bus, recorder()):
        receipts = [await bus.publish(Paid(number=n), key=f"i-{n}", organization="acme") for n in range(20)]
        receipts.append(await bus.publish(Sent(), priority=1))
        receipts.append(await bus.publish(Sent(), delay=0.05))
        await bus.forward([Outgoing(unknown)])
        ids = {receipt.id for receipt in receipts} | {unknown.id}
        assert {*await recorded(bus, 23)} == ids
        found = await bus.history.find(unknown.id)
    assert found is not None
    assert found.envelope == unknown
