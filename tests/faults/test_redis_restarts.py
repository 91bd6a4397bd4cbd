"""Faults 5 and 9: Redis is killed and comes back; its scripts are forgotten."""

import asyncio

import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from tests.faults.conftest import Arena, ArenaFactory
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS
from tests.servers import OwnRedis, redis_binaries
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE


@pytest.mark.parametrize("server", sorted(redis_binaries()))
async def test_a_redis_killed_for_a_second_loses_no_acknowledged_publish(
    server: str, own_redis: OwnRedis, arena_on: ArenaFactory
) -> None:
    """BullMQ#2466, celery#8030: workers were deaf after the server's restart. arq#435: one exited on a blip."""
    redis = own_redis(binary=redis_binaries()[server])
    arena = arena_on(redis.url)
    async with EventBus(redis.url) as bus:
        for _ in range(2):
            arena.fleet.start()
        warm_up = await arena.at_work(bus)  # a worker that still starts when its server dies ends, as it should
        publishing = asyncio.create_task(arena.publish_all(bus, range(1, 1001), per_second=300))
        await arena.runs(warm_up + 200)
        redis.kill()
        await asyncio.sleep(1.0)
        await asyncio.to_thread(redis.start)
        with Stopwatch() as back:
            seen = (await arena.observe(bus)).tokens("run").total()
            await arena.runs(seen + 1)
        assert back.seconds <= 5.0, "workers resume within 5 s"
        await publishing
        observed = await arena.settled(bus, warm_up + 1_000)
    check(observed, attempts=ATTEMPTS)
    assert all(process.poll() is None for process in arena.fleet.processes), "no worker may exit on a blip"
    lines = [line for line in arena.fleet.log().splitlines() if "redis is away" in line]
    assert len(lines) <= 2 * 6, f"each connection says once that Redis is away, not {len(lines)} times"


async def test_nobody_notices_that_the_scripts_were_flushed(arena: Arena, bus: EventBus) -> None:
    for _ in range(2):
        arena.fleet.start()
    publishing = asyncio.create_task(arena.publish_all(bus, range(1, 501), per_second=250))
    for token in (501, 502):
        await arena.publish(bus, token, "fail")
    async with Redis.from_url(arena.redis_url, socket_timeout=PATIENCE) as client:
        while not publishing.done():
            await client.script_flush()
            await asyncio.sleep(0.02)
    observed = await arena.settled(bus, 502)
    check(observed, attempts=ATTEMPTS, poison=[501, 502])
    assert "NOSCRIPT" not in arena.fleet.log()
