"""arq, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# arq is not installed where this project is checked.

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_asyncio import Peer, background, main
from drive.work import Payload

# A worker reads max_jobs * 5 ids per poll (arq.worker.Worker, queue_read_limit) and then waits for the next one: with
# the default of 0.5 s it could do no more than 1,000 jobs a second, and would start them 250 ms late on average.
POLL_DELAY = 0.01


class Arq(Peer):
    name = "arq"
    packages = ("arq",)
    settings = "uvloop, hiredis, max_jobs as asked for, poll_delay 0.01 s instead of 0.5 s, at most 50 publish at once"
    guarantees = (
        "Acknowledged after the job, whose result is kept for an hour; no retry of an exception "
        "unless it asks for one; 5 tries otherwise. What a dead worker held runs again after 310 s (timeout + 10 s)."
    )

    @asynccontextmanager
    async def opened(self):
        self._redis = await create_pool(RedisSettings.from_dsn(self.url))
        try:
            yield
        finally:
            await self._redis.aclose(close_connection_pool=True)

    async def publish(self, lead: Payload) -> None:
        await self._redis.enqueue_job("handle", lead)

    @asynccontextmanager
    async def working(self):
        async def handle(_ctx: dict[str, object], lead: Payload) -> None:
            await self.work.run(lead["leadId"])

        # async_run: the worker in a loop that runs already, as its documentation on "usage in tests" has it.
        worker = Worker(
            [func(handle, name="handle")],
            redis_pool=self._redis,
            max_jobs=self.concurrency,
            poll_delay=POLL_DELAY,
            handle_signals=False,
        )
        async with background(worker.async_run()):
            yield
            await asyncio.gather(*worker.tasks.values())  # they have run, and are being acknowledged


if __name__ == "__main__":
    main(Arq, uvloop.new_event_loop)
