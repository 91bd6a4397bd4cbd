"""Faults 5, 6 and 7 with a spool: Redis is killed for long, frozen, or full. Publishers are answered within their time,
and afterwards every event that was answered for is processed once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.embedded import EmbeddedRedis
from tests.faults.conftest import WARM_UP, Arena, ArenaFactory
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS, LEASE
from tests.servers import OwnRedis, redis_binaries
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, until

RESUMED = 5.0  # seconds after Redis is back
SLACK = 0.5  # seconds by which a busy machine may be late to wake a task


@asynccontextmanager
async def spooling(arena: Arena, timeout: float) -> AsyncIterator[EventBus]:
    async with EventBus(arena.redis_url, spool=arena.spool, publish_timeout=timeout) as bus:
        yield bus


async def drained(arena: Arena, bus: EventBus, count: int, warm_up: int = 0, *, late: bool = False) -> None:
    """The spool is empty, and every event has run once. `late`: the machine kept publishers waiting, so that some may
    have run out of their time before the spool could take the event; those know nothing."""
    assert bus.spool is not None
    spool = bus.spool
    await until(lambda: spool.file.size() == 0, timeout=2 * PATIENCE)
    unknown = set(arena.history_of_publishers().tokens("publish unknown")) if late else set[int]()
    await arena.effects(count + warm_up - len(unknown))
    observed = await arena.settled(bus, count + warm_up - len(unknown))
    check(observed, attempts=ATTEMPTS)
    taken = set(observed.tokens("publish ok")) | set(observed.tokens("publish spooled"))
    assert {token for token in taken if token < WARM_UP} == set(range(count)) - unknown


@pytest.mark.timeout(600)  # some ten thousand transactions: half a minute on an idle machine of two cores
@pytest.mark.parametrize(("server", "down"), [("valkey", 10.0), ("redis", 2.0)])
async def test_killed_under_a_thousand_publishes_a_second(
    server: str, down: float, own_redis: OwnRedis, arena_on: ArenaFactory
) -> None:
    redis = own_redis(binary=redis_binaries()[server])
    arena = arena_on(redis.url)
    rate, before, after = 1000, 0.5, 0.5
    count = round(rate * (before + down + after))
    async with spooling(arena, 5.0) as bus:
        for _ in range(2):
            arena.fleet.start()
        warm_up = await arena.at_work(bus)  # a worker that still starts when its server dies ends, as it should
        with Stopwatch() as publishing_time:
            publishing = asyncio.create_task(arena.publish_all(bus, range(count), per_second=rate))
            await asyncio.sleep(before)
            redis.kill()
            begun, cpu = arena.written.count("publish invoked"), time.process_time()
            await asyncio.sleep(down)
            cpu = time.process_time() - cpu
            begun = arena.written.count("publish invoked") - begun
            seen = arena.history_of_publishers().tokens("run").total()
            await asyncio.to_thread(redis.start)
            with Stopwatch() as back:
                await arena.runs(seen + 1)
            assert back.seconds <= RESUMED, "workers resume within 5 s"
            await publishing
        await drained(arena, bus, count, warm_up, late=publishing_time.kept_waiting >= 0.5)
    observed = arena.history_of_publishers()
    assert observed.tokens("publish spooled").total() >= 0.5 * begun, "what was published while Redis was away"
    assert observed.slowest() - publishing_time.kept_waiting <= 5.0 + SLACK
    assert cpu / down < 0.8, f"publishing into the spool took {cpu:.1f} s of {down:.1f}"


async def freeze(redis: EmbeddedRedis) -> None:
    redis.pause()


async def pause_clients(redis: EmbeddedRedis) -> None:
    async with Redis.from_url(redis.url, socket_timeout=PATIENCE) as client:
        await client.client_pause(3000)


async def pause_writes(redis: EmbeddedRedis) -> None:
    async with Redis.from_url(redis.url, socket_timeout=PATIENCE) as client:
        await client.client_pause(3000, all=False)


@pytest.mark.parametrize(
    ("server", "stop"),
    [("valkey", freeze), ("redis", freeze), ("valkey", pause_writes), ("redis", pause_clients)],
)
async def test_frozen(
    server: str, stop: Callable[[EmbeddedRedis], Awaitable[None]], own_redis: OwnRedis, arena_on: ArenaFactory
) -> None:
    redis = own_redis(binary=redis_binaries()[server])
    arena = arena_on(redis.url)
    async with spooling(arena, 2.0) as bus:
        arena.fleet.start()
        await arena.publish(bus, 0)
        await arena.runs(1)
        await stop(redis)
        with Stopwatch() as publishing:
            await arena.publish_all(bus, range(1, 401), per_second=200)
            await asyncio.sleep(max(0.0, 3.0 - publishing.passed))
        if stop is freeze:
            redis.resume()
        await drained(arena, bus, 401, late=publishing.kept_waiting >= 0.5)
    observed = arena.history_of_publishers()
    if publishing.kept_waiting < 0.5:  # else the pause may have been over before the last had been published
        assert observed.tokens("publish spooled").total() >= 300
    assert observed.slowest() - publishing.kept_waiting <= 2.0 + SLACK


@pytest.mark.parametrize("server", sorted(redis_binaries()))
async def test_full(server: str, own_redis: OwnRedis, arena_on: ArenaFactory) -> None:
    """Publishers without a spool are told, those with one are spooled; consumers drain what is there."""
    redis = own_redis(binary=redis_binaries()[server])
    arena = arena_on(redis.url)
    async with (
        spooling(arena, 2.0) as bus,
        EventBus(redis.url) as plain,
        Redis.from_url(redis.url, socket_timeout=PATIENCE) as client,
    ):
        arena.fleet.start()
        await arena.publish(bus, 0)
        await arena.runs(1)  # its groups are there: a full server makes none
        await asyncio.gather(*(arena.publish(bus, token) for token in range(1, 200)))
        await client.config_set("maxmemory", "1mb")
        await arena.effects(200)  # consumers drain; the events of their effects wait in the outbox
        await arena.publish_all(bus, range(200, 300), per_second=1000)
        await arena.publish_all(plain, range(1000, 1100), per_second=1000)
        observed = arena.history_of_publishers()
        assert observed.tokens("publish spooled").keys() == set(range(200, 300))
        assert observed.tokens("publish failed").keys() == set(range(1000, 1100))
        assert (await arena.observe(bus)).pending == 0
        await client.config_set("maxmemory", "0")
        await drained(arena, bus, 300)


@pytest.mark.parametrize("server", sorted(redis_binaries()))
async def test_what_fails_while_redis_is_full(server: str, own_redis: OwnRedis, arena_on: ArenaFactory) -> None:
    """Retries and dead letters need memory: they wait until there is some, and no attempt is lost or made up."""
    redis = own_redis(binary=redis_binaries()[server])
    arena = arena_on(redis.url)
    poison = range(1, 16)
    async with spooling(arena, 2.0) as bus, Redis.from_url(redis.url, socket_timeout=PATIENCE) as client:
        arena.fleet.start()
        await asyncio.gather(*(arena.publish(bus, token, "fail-after:1.0") for token in poison))
        await arena.runs(len(poison))
        await client.config_set("maxmemory", "1mb")
        await until(lambda: "is full" in arena.fleet.log())
        await asyncio.sleep(2 * LEASE)  # whoever forgets an outcome sees its lease end, or never
        assert arena.history_of_publishers().tokens("run").total() == len(poison), "nothing is retried yet"
        await client.config_set("maxmemory", "0")
        observed = await arena.settled(bus, len(poison))
    check(observed, attempts=ATTEMPTS, poison=poison)
    assert observed.tokens("run") == dict.fromkeys(poison, ATTEMPTS)
