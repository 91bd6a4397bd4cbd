"""A worker process whose handler holds its first event for long: `python -m benchmarks.programs.holding URL`.

It notes in Redis that it is up, and each start of the event: which process, and when."""

import asyncio
import os
import sys
import time

from redis.asyncio import Redis

from benchmarks.contenders.ours import GROUP, Measured
from eventbus import Context, EventBus, Group, Worker
from eventbus.process.loop import run

UP, STARTS = "bench:up", "bench:starts"
HELD = 45.0  # seconds


async def main(url: str) -> None:
    group = Group(GROUP)
    async with EventBus(url) as bus, Redis.from_url(url) as client:

        @group.on(Measured)
        async def handle(_event: Measured, _ctx: Context) -> None:
            if await client.rpush(STARTS, f"{os.getpid()} {time.time()}") == 1:
                await asyncio.sleep(HELD)

        await client.incr(UP)
        await Worker(bus, [group]).run()


if __name__ == "__main__":
    run(main(sys.argv[1]))
