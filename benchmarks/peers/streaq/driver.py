"""streaQ, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# streaQ is not installed where this project is checked.

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from coredis import Config
from streaq import Worker

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_asyncio import Peer, background, main
from drive.work import Payload

Config.optimized = True  # coredis.config: "most runtime validations will be disabled"; a fifth less time for each event


class Streaq(Peer):
    name = "streaQ"
    packages = ("streaq", "coredis")
    settings = (
        "uvloop, optimized coredis, concurrency as asked for (and as many prefetched), at most 50 publish at once"
    )
    guarantees = (
        "Acknowledged after the task, whose result is kept for 5 minutes; no retry of an exception unless it asks for "
        "one, 3 tries otherwise. What a dead worker held runs again after 60 s."
    )

    @asynccontextmanager
    async def opened(self):
        client, self._handle = self._application()
        async with client:
            yield

    def _application(self):
        worker = Worker(self.url, concurrency=self.concurrency, handle_signals=False)

        @worker.task(name="handle")
        async def handle(lead: Payload) -> None:
            await self.work.run(lead["leadId"])

        return worker, handle

    async def publish(self, lead: Payload) -> None:
        await self._handle.enqueue(lead)

    def working(self):
        worker, _ = self._application()  # one can be entered once: to publish, or to work
        return background(worker.run_async())


if __name__ == "__main__":
    main(Streaq, uvloop.new_event_loop)
