"""The limit: redis-py with nothing around it. No envelope, no validation, no retries, no leases.

`python -m benchmarks.contenders.raw TASK …` is its driver, see benchmarks.contenders.driver.
"""

import asyncio
import json
from importlib.metadata import version
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.contenders import driver
from benchmarks.running.measure import Figure, Latency, OpenLoop, Stopwatch, Tick

PIPELINE = 500
READ = 200
BLOCK = 1000  # ms
CONNECTIONS = 50
NAME = "redis-py, raw"
STREAM, GROUP = "raw:stream", "raw"
PAYLOAD = json.dumps(
    {"leadId": "lead-00000001", "organizationId": "org-1", "note": "x" * 36}, separators=(",", ":")
).encode()


async def publish(url: str, count: int, tick: Tick) -> Figure:
    """Pipelines of 500 XADD."""
    async with _connected(url) as client:
        with Stopwatch() as watch:
            await _publish(client, count, tick)
    return Figure(NAME, "publish", count, watch.seconds)


async def consume(url: str, count: int, tick: Tick) -> Figure:
    """XREADGROUP of 200, one XACK for all of them."""
    async with _connected(url) as client:
        await _create_group(client)
        with Stopwatch() as watch:
            await _consume(client, count, tick)
    return Figure(NAME, "consume", count, watch.seconds)


async def both(url: str, count: int, tick: Tick) -> Figure:
    """Both at once, on a connection each."""
    async with _connected(url) as writer, _connected(url) as reader:
        await _create_group(reader)
        with Stopwatch() as watch:
            await asyncio.gather(_publish(writer, count, _unheard), _consume(reader, count, tick))
    return Figure(NAME, "both", count, watch.seconds)


async def latency(url: str, rate: float, seconds: float, tick: Tick) -> Latency:
    """XADD in an open loop; XREADGROUP and XACK in a loop beside it."""
    loop = OpenLoop(rate, seconds)
    async with _pooled(url) as writer, _connected(url) as reader:
        await _create_group(reader)

        async def read() -> None:
            while len(loop.latencies) < loop.count:
                entries = await _read(reader)
                for _, fields in entries:
                    loop.started(int(fields[b"number"]))
                await _acknowledge(reader, entries)

        async def send(number: int) -> None:
            await writer.xadd(STREAM, {"data": PAYLOAD, "number": number})

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await loop.run(send, tick)
    return Latency.of(NAME, rate, loop.latencies)


async def alone(url: str, count: int, tick: Tick) -> Figure:
    """One XADD awaited after the other."""
    async with _connected(url) as client:
        with Stopwatch() as watch:
            for number in range(count):
                await client.xadd(STREAM, {"data": PAYLOAD})
                if number % 100 == 0:
                    tick(100)
    return Figure(NAME, "alone", count, watch.seconds)


def _connected(url: str) -> Redis:
    return Redis.from_url(url, protocol=2)


def _pooled(url: str) -> Redis:
    """As many connections as are of use, for sends that overlap; further sends wait for one instead of failing."""
    return Redis.from_pool(BlockingConnectionPool.from_url(url, protocol=2, max_connections=CONNECTIONS, timeout=30))


async def _create_group(client: Redis) -> None:
    await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)


async def _publish(client: Redis, count: int, tick: Tick) -> None:
    for start in range(0, count, PIPELINE):
        size = min(PIPELINE, count - start)
        async with client.pipeline(transaction=False) as pipeline:
            for _ in range(size):
                pipeline.xadd(STREAM, {"data": PAYLOAD})
            await pipeline.execute()
        tick(size)


async def _consume(client: Redis, count: int, tick: Tick) -> None:
    seen = 0
    while seen < count:
        entries = await _read(client)
        await _acknowledge(client, entries)
        seen += len(entries)
        tick(len(entries))


async def _read(client: Redis) -> list[tuple[bytes, dict[bytes, bytes]]]:
    reply: Any = await client.xreadgroup(GROUP, "reader", {STREAM: ">"}, count=READ, block=BLOCK)
    return reply[0][1] if reply else []


async def _acknowledge(client: Redis, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    if entries:
        await client.xack(STREAM, GROUP, *(entry_id for entry_id, _ in entries))


def _unheard(_events: int) -> None:
    return


def describe() -> dict[str, str]:
    return {
        "name": NAME,
        "version": version("redis"),
        "language": "Python",
        "settings": f"uvloop, hiredis; pipelines of {PIPELINE} XADD, reads of {READ}, one XACK for each read",
        "guarantees": "None: no envelope, no validation, no retries; nothing is taken over from a dead worker. "
        "The limit, no peer.",
    }


async def _consume_at_once(options: Any, tick: Tick) -> Figure:
    if options.wait_ms:
        raise driver.Unsupported("a read loop without handlers: there is nothing that could wait")
    return await consume(options.url, options.count, tick)


TASKS: dict[str, driver.Task] = {
    "publish": lambda o, tick: publish(o.url, o.count, tick),
    "consume": _consume_at_once,
    "both": lambda o, tick: both(o.url, o.count, tick),
    "latency": lambda o, tick: latency(o.url, o.rate, o.seconds, tick),
    "alone": lambda o, tick: alone(o.url, o.count, tick),
}


if __name__ == "__main__":
    driver.main(TASKS, describe)
