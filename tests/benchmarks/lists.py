"""A driver as benchmarks/peers has them, of a library that is not worth the name: a Redis list, and what FAULT says."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

from redis.asyncio import Redis

from benchmarks.peers.drive import protocol
from benchmarks.peers.drive.on_asyncio import Peer, background, main
from benchmarks.peers.drive.work import Payload
from tests.waiting import PATIENCE

FAULT = os.environ.get("FAULT")
if FAULT == "stuck":
    protocol.STALLED = 2.0


class Lists(Peer):
    name = "lists"
    packages = ("redis",)
    settings = "none"
    guarantees = "none"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        async with Redis.from_url(self.url, protocol=2, socket_timeout=PATIENCE) as self._redis:
            yield

    async def publish(self, lead: Payload) -> None:
        await self._redis.rpush("leads", json.dumps(lead))

    def working(self) -> AbstractAsyncContextManager[None]:
        if FAULT == "unable":
            raise protocol.Unsupported("It can do nothing at all.")
        return background(self._work())

    async def _work(self) -> None:
        print("a greeting, on stdout")
        while FAULT != "stuck":
            _, raw = await cast(Awaitable[list[bytes]], self._redis.blpop(["leads"]))
            if FAULT == "crash":
                raise RuntimeError("no more of this")
            for _ in range(2 if FAULT == "twice" else 1):
                await self.work.run(json.loads(raw)["leadId"])
            if FAULT == "forgetful":
                await self._redis.rpush("leads", raw)
        await asyncio.Event().wait()


if __name__ == "__main__":
    main(Lists, asyncio.new_event_loop)
