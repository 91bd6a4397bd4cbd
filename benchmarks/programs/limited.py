"""A worker process under a limit of 100/s that it shares with others: `python -m benchmarks.programs.limited URL`."""

import sys
import time

from redis.asyncio import Redis

from benchmarks.promises import Timed
from eventbus import Context, EventBus, Group, RateLimit, Worker
from eventbus.process.loop import run


async def main(url: str) -> None:
    group = Group("limited", rate_limit=RateLimit(100, per=1.0), concurrency=50)
    async with EventBus(url) as bus, Redis.from_url(url) as client:

        @group.on(Timed)
        async def handle(_event: Timed, _ctx: Context) -> None:
            await client.rpush("bench:starts", str(time.time()))

        await Worker(bus, [group]).run()


if __name__ == "__main__":
    run(main(sys.argv[1]))
