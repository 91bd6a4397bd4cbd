"""The application as it runs in production: gateway and workers in processes of their own."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from redis.asyncio import Redis

from eventbus import EventBus
from eventbus.embedded.ports import free_port
from eventbus.postgres import apply, installed
from gateway.callers.auth import make_token
from tests.databases import Looking
from tests.faults.fleet import Fleet
from tests.waiting import PATIENCE

SECRET = "a secret of the tests, 32 bytes long"
ORGANIZATION, USER = "acme", "ada"


class Crm:
    """Gateway and workers on given servers. `gateway` and `workers` are fleets: their processes may be killed."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self.redis_url, self.database_url = redis_url, database_url
        self._database = Looking(database_url)
        self._redis = Redis.from_url(redis_url, socket_timeout=PATIENCE)
        self.url = f"http://127.0.0.1:{free_port()}"
        environment = {
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_DATABASE_URL": database_url,
            "EVENTBUS_JWT_SECRET": SECRET,
            "EVENTBUS_PORT": self.url.rpartition(":")[2],
            "EVENTBUS_LOG_FORMAT": "json",
            "EVENTBUS_RATE_LIMIT": "off",
        }
        for name in ("gateway", "workers"):
            (folder / name).mkdir()
        self.gateway = Fleet(folder / "gateway", "gateway", environment)
        self.workers = Fleet(folder / "workers", "consumers", environment)
        token = make_token(SECRET, user=USER, organization=ORGANIZATION, roles=frozenset({"user", "admin"}))
        self.headers = {"Authorization": f"Bearer {token}"}

    async def migrate(self) -> None:
        connection = await asyncpg.connect(self.database_url)
        try:
            await apply(connection, installed())
        finally:
            await connection.close()

    def client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, headers=self.headers, timeout=aiohttp.ClientTimeout(total=PATIENCE))

    async def start_gateway(self, crash: str = "") -> None:
        """Returns when it answers."""
        process = self.gateway.start(crash=crash)
        async with self.client() as client, asyncio.timeout(PATIENCE):
            while True:
                try:
                    async with client.get("/livez"):
                        return
                except aiohttp.ClientConnectionError:
                    assert process.poll() is None, self.gateway.log()
                    await asyncio.sleep(0.05)

    async def sql(self, query: str, *values: Any) -> list[asyncpg.Record]:
        return await self._database.fetch(query, *values)

    async def at_rest(self) -> bool:
        """Nothing is unsettled, and nothing waits in the outbox. Work wanders between the two while they are asked one
        after the other: what is at rest before and after, with no stream grown, was at rest meanwhile."""
        added = await self.added()
        if await self.unsettled():
            return False
        waiting = await self.sql("SELECT 1 FROM eventbus_outbox WHERE published_at IS NULL LIMIT 1")
        return not waiting and not await self.unsettled() and await self.added() == added

    async def added(self) -> int:
        """How many entries the streams have ever got."""
        streams = [key async for key in self._redis.scan_iter("eb:*:stream")]
        return sum([(await self._redis.xinfo_stream(key))["entries-added"] for key in streams])

    async def unsettled(self) -> int:
        """Over all streams: what is scheduled, not delivered to some group, or delivered and not settled."""
        streams = [key async for key in self._redis.scan_iter("eb:*:stream")]
        found = [(key, group) for key in streams for group in await self._redis.xinfo_groups(key)]
        # What a killed recorder had in hand is recorded a minute later; test_history.py looks after that.
        others = [(key, group) for key, group in found if group["name"] != b"history"]
        waiting = [await _behind(self._redis, key, group) for key, group in others]
        scheduled = [await self._redis.zcard(key) async for key in self._redis.scan_iter("eb:*:due")]
        return sum(int(group["pending"]) for _, group in others) + sum(waiting) + sum(scheduled)

    async def dead(self) -> list[str]:
        """What the dead letters of all streams say."""
        async with EventBus(self.redis_url) as bus:
            streams: Sequence[str] = await bus.transport.streams()
            letters = [letter for stream in streams for letter in await bus.transport.dead_letters(stream)]
        return [f"{letter.group}: {letter.error}" for letter in letters]

    async def end(self) -> None:
        self.gateway.end()
        self.workers.end()
        await self._database.close()
        await self._redis.aclose()


async def _behind(client: Redis, key: bytes, group: dict[str, Any]) -> int:
    """The lag, where the server knows it: behind a deleted entry it does not."""
    if group["lag"] is not None:
        return int(group["lag"])
    return len(await client.xrange(key, b"(" + group["last-delivered-id"]) or ())
