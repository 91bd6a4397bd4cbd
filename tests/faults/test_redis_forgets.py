"""Fault 8: Redis loses a group, a stream or everything, under running workers."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.postgres import Database
from tests.faults import jobs
from tests.faults.conftest import KEY, Arena, ArenaFactory
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS
from tests.waiting import PATIENCE


async def _destroy_groups(redis: Redis) -> None:
    await redis.xgroup_destroy(KEY, "jobs")
    await redis.xgroup_destroy(KEY, "notes")


async def _delete_stream(redis: Redis) -> None:
    await redis.delete(KEY)


async def _flush(redis: Redis) -> None:
    await redis.flushall()


LOSSES: list[Callable[[Redis], Awaitable[None]]] = [_destroy_groups, _delete_stream, _flush]


@pytest.mark.parametrize("lose", LOSSES)
async def test_what_is_published_after_the_loss_flows_and_the_loss_is_told(
    lose: Callable[[Redis], Awaitable[None]], arena: Arena, bus: EventBus
) -> None:
    """faststream#2611: a group that was lost in a flush never came back."""
    for _ in range(2):
        arena.fleet.start()
    published = await arena.at_work(bus)
    await arena.publish_all(bus, range(1, 51), per_second=200)
    published += 50
    observed = await arena.settled(bus, published)
    check(observed, attempts=ATTEMPTS)
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        await lose(client)
    await arena.publish_all(bus, range(101, 151), per_second=200)
    observed = await arena.settled(bus, published + 50)
    check(observed, attempts=ATTEMPTS)
    assert all(process.poll() is None for process in arena.fleet.processes)
    created = [line for line in arena.fleet.log().splitlines() if '"group created"' in line and '"jobs"' in line]
    assert len(created) == 2, "in the beginning, and once more"


async def test_a_group_that_is_destroyed_under_load_meets_every_event(arena: Arena, bus: EventBus) -> None:
    """It comes back at the beginning: what was pending, unread or done comes again, and effects happen once."""
    for _ in range(2):
        arena.fleet.start()
    publishing = asyncio.create_task(arena.publish_all(bus, range(1, 401), per_second=200))
    await arena.runs(20)
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        while not publishing.done():
            await client.xgroup_destroy(KEY, "jobs")
            await asyncio.sleep(0.3)
    check(await arena.settled(bus, 400), attempts=ATTEMPTS)


async def test_the_outbox_publishes_what_it_still_holds_after_a_flush(
    arena_on: ArenaFactory, any_redis_url: str
) -> None:
    arena = arena_on(any_redis_url)
    database = Database(arena.database_url)
    await database.connect()
    async with (
        EventBus(any_redis_url) as bus,
        database.connection() as connection,
        Redis.from_url(any_redis_url, socket_timeout=PATIENCE) as it,
    ):
        arena.fleet.start()
        warm_up = await arena.at_work(bus)
        await arena.settled(bus, warm_up)
        async with connection.transaction():
            for token in range(1, 51):
                arena.history.record("publish invoked", token=token)
                await database.outbox(connection).publish(jobs.Job(token=token))
            await it.flushall()  # while they are held open
        for token in range(1, 51):
            arena.history.record("publish ok", token=token)
        check(await arena.settled(bus, warm_up + 50), attempts=ATTEMPTS)
    await database.close()
