"""SAQ, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# SAQ is not installed where this project is checked.

import logging
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import uvloop
from saq import Queue, Worker

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_asyncio import Peer, background, main
from drive.work import Payload

logging.getLogger("saq").setLevel(logging.ERROR)  # it warns of each stop that idle workers had to be cancelled


class Saq(Peer):
    name = "SAQ"
    packages = ("saq",)
    settings = (
        "uvloop, hiredis (its README: saq[hiredis]), orjson as dump and load, concurrency as asked for and as many "
        "operations at once (max_concurrent_ops, 20 by default), at most 50 publish at once"
    )
    guarantees = (
        "Acknowledged after the job, whose result is kept for 10 minutes; 1 try, timeout 10 s. What a dead worker held "
        "is swept after a minute: aborted if it had begun, since that was its only try; else run."
    )

    @asynccontextmanager
    async def opened(self):
        # dump, load and max_concurrent_ops: parameters of saq.queue.redis.RedisQueue. The last throttles fetching as
        # well, so that a worker of 100 with the default of 20 waits for itself.
        self._queue = Queue.from_url(
            self.url, dump=orjson.dumps, load=orjson.loads, max_concurrent_ops=max(20, self.concurrency)
        )
        try:
            yield
        finally:
            await self._queue.disconnect()

    async def publish(self, lead: Payload) -> None:
        await self._queue.enqueue("handle", lead=lead)

    def working(self):
        async def handle(_ctx: dict[str, object], *, lead: Payload) -> None:
            await self.work.run(lead["leadId"])

        worker = Worker(
            self._queue,
            [("handle", handle)],
            concurrency=self.concurrency,
            shutdown_grace_period_s=1,  # none by default: what has run and is being acknowledged would be cancelled
        )
        return background(worker.start())


if __name__ == "__main__":
    main(Saq, uvloop.new_event_loop)
