"""Bytes in Redis for each event that waits: used_memory after minus before, by the number of events.

Ours carry their full envelope, with subject and organization: as the first event of a chain, and as one that descends
from another, with correlation and causation ids."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.running import servers
from benchmarks.running.outcome import Metric
from benchmarks.suites import Stage, Suite, by_contender

EVENTS, FEWER_EVENTS = 20_000, 5_000
AHEAD = 500  # events that are published before: loaded scripts and the like belong to no event that is measured
QUIET = 0.5  # seconds, in which the buffers of clients that have gone are freed

NAME = "memory"
METRICS = tuple(
    Metric(suite=NAME, name=f"{kind}-{server}", title=f"Bytes for each event{what}, {label}", unit="B", better="less")
    for server, label in (("valkey", "Valkey"), ("redis", "Debian's Redis"))
    for kind, what in (("root", ""), ("descended", " that descends from another"))
)


async def _measure(stage: Stage) -> None:
    where: dict[str, Path | None] = {"valkey": None}
    if not stage.plan.quick and (debian := servers.debian_redis()):
        where["redis"] = debian
    kinds = {"root": False, "descended": True} if stage.contender is stage.plan.ours else {"root": False}
    for server, binary in where.items():
        with servers.server(binary) if binary else nullcontext(stage.url) as url:
            for kind, descended in kinds.items():
                await servers.flush(url)
                stage.record(f"{kind}-{server}", await _bytes(stage, url, descended))


async def _bytes(stage: Stage, url: str, descended: bool) -> float:
    count = FEWER_EVENTS if stage.plan.quick else EVENTS
    options = {"descended": True} if descended else {}
    async with Redis.from_url(url, protocol=2) as client:
        await stage.drive("publish", url, count=AHEAD, **options)
        before = await _used(client)
        await stage.drive("publish", url, count=count, **options)
        return (await _used(client) - before) / count


async def _used(client: Redis) -> int:
    await asyncio.sleep(QUIET)
    return int((await client.info("memory"))["used_memory"])


SUITE = Suite(NAME, METRICS, by_contender(_measure), rounds=1)  # the same bytes each time
