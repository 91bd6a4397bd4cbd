"""The limit: redis-py with nothing around it. No envelope, no validation, no retries, no leases."""

from typing import Any

from redis.asyncio import Redis

from benchmarks.measure import Figure, Stopwatch, Tick

PIPELINE = 500
READ = 200
NAME = "redis-py, raw"
STREAM, GROUP = "raw:stream", "raw"
PAYLOAD = b"x" * 100


async def publish(url: str, count: int, tick: Tick) -> Figure:
    """Pipelines of 500 XADD."""
    client = Redis.from_url(url, protocol=2)
    with Stopwatch() as watch:
        for _ in range(count // PIPELINE):
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(PIPELINE):
                    pipeline.xadd(STREAM, {"data": PAYLOAD})
                await pipeline.execute()
            tick(PIPELINE)
    await client.aclose()
    return Figure(NAME, "publish", count // PIPELINE * PIPELINE, watch.seconds)


async def consume(url: str, count: int, tick: Tick) -> Figure:
    """XREADGROUP of 200, one XACK for all of them."""
    client = Redis.from_url(url, protocol=2)
    await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    seen = 0
    with Stopwatch() as watch:
        while seen < count:
            reply: Any = await client.xreadgroup(GROUP, "reader", {STREAM: ">"}, count=READ)
            ids = [entry_id for entry_id, _ in reply[0][1]]
            await client.xack(STREAM, GROUP, *ids)
            seen += len(ids)
            tick(len(ids))
    await client.aclose()
    return Figure(NAME, "consume", seen, watch.seconds)
