"""taskiq on Redis streams, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# taskiq is not installed where this project is checked.

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_asyncio import Peer, background, main
from drive.work import Payload


class Taskiq(Peer):
    name = "taskiq (Redis streams)"
    packages = ("taskiq", "taskiq-redis")
    settings = (
        "uvloop and hiredis, orjson as serializer, max_async_tasks as asked for and as many prefetched, no result "
        "backend (its default), at most 50 publish at once"
    )
    guarantees = (
        "Acknowledged after the task; no retry of an exception without a middleware. What a dead worker held runs "
        "again after 600 s."
    )

    @asynccontextmanager
    async def opened(self):
        # with_serializer: the guide on message formats and serializers, which ships ORJSONSerializer for speed.
        self._broker = RedisStreamBroker(self.url).with_serializer(ORJSONSerializer())

        @self._broker.task(task_name="handle")
        async def handle(lead: dict[str, str]) -> None:
            await self.work.run(lead["leadId"])

        self._handle = handle
        await self._broker.startup()
        try:
            yield
        finally:
            await self._broker.shutdown()

    async def publish(self, lead: Payload) -> None:
        await self._handle.kiq(lead)

    @asynccontextmanager
    async def working(self):
        # What each process of `taskiq worker` runs (taskiq.cli.worker.run), and how it ends it; run_receiver_task has
        # no way to end it. --max-prefetch: none by default, which has the reader wait for the tasks.
        stop = asyncio.Event()
        self._broker.is_worker_process = True
        receiver = Receiver(
            self._broker, max_async_tasks=self.concurrency, max_prefetch=self.concurrency, run_startup=False
        )
        async with background(receiver.listen(stop), stop.set):
            yield


if __name__ == "__main__":
    main(Taskiq, uvloop.new_event_loop)
