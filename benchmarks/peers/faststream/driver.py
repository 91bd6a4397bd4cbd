"""FastStream on Redis streams, driven for the benchmark in an environment of requirements.txt: see ../drive."""

# mypy: ignore-errors
# FastStream is not installed where this project is checked.

import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import uvloop
from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from redis.asyncio import Redis
from redis.exceptions import ResponseError

sys.path.append(str(Path(__file__).parents[1]))
from drive.on_asyncio import Peer, main
from drive.work import Payload

STREAM, GROUP = "leads", "bench"


class Lead(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    lead_id: str
    organization_id: str
    note: str


class FastStream(Peer):
    name = "FastStream (Redis streams)"
    packages = ("faststream",)
    settings = (
        "uvloop, hiredis and orjson, which it takes where they are installed; a consumer group, max_workers as asked "
        "for, reads of as many (max_records), no log line per message (logger=None), at most 50 publish at once"
    )
    guarantees = (
        "Acknowledged after the handler, and after its exception as well (REJECT_ON_ERROR): no retry. What a dead "
        "worker held stays pending for ever, unless a second subscriber claims it."
    )

    @asynccontextmanager
    async def opened(self):
        # A group that the subscriber makes begins at the end of the stream: what was published before is not for it.
        async with Redis.from_url(self.url) as redis:
            with suppress(ResponseError):
                await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
        # max_connections: redis-py refuses the hundred-and-first by default, and acknowledging alone may need 100.
        self._broker = RedisBroker(self.url, logger=None, max_connections=5_000)
        await self._broker.connect()
        try:
            yield
        finally:
            await self._broker.stop()

    async def publish(self, lead: Payload) -> None:
        await self._broker.publish(lead, stream=STREAM)

    @asynccontextmanager
    async def working(self):
        # Consumer groups and acknowledging as in its pages on Redis streams; max_workers is its way to concurrency.
        stream = StreamSub(STREAM, group=GROUP, consumer="one", max_records=self.concurrency)

        @self._broker.subscriber(stream=stream, max_workers=self.concurrency)
        async def handle(lead: Lead) -> None:
            await self.work.run(lead.lead_id)

        await self._broker.start()
        yield


if __name__ == "__main__":
    main(FastStream, uvloop.new_event_loop)
