"""Ways to a Redis server that tests share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import reduce
from operator import add

from eventbus.contract.delivery import Subscription
from eventbus.errors import Unavailable
from eventbus.redis import RedisTransport
from eventbus.redis.keys import stream_keys
from eventbus.redis.links import Argument, Links, Reply
from eventbus.redis.router import Router
from tests.waiting import eventually

_EVERYWHERE = {"KEYS", "CONFIG", "CLIENT", "FLUSHDB", "FLUSHALL", "INFO", "SCRIPT"}


class Everywhere(Router):
    """Does to all servers what a command does to a server: on a cluster as on one."""

    async def execute(self, *command: Argument) -> Reply:
        if command[0] not in _EVERYWHERE:
            return await super().execute(*command)
        replies = [await node.execute(*command) for node in await self.nodes()]
        return reduce(add, replies) if command[0] in {"KEYS", "INFO"} else replies[0]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(url)
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def steady(url: str, subscription: Subscription) -> AsyncIterator[RedisTransport]:
    """A transport that has been watching the server for long enough to take leases over."""
    async with connected(url) as transport:
        await transport.reclaim(subscription, 0)
        key = stream_keys("eb", subscription.stream).stream

        async def knows() -> bool:
            return transport._pulses.of(key).age_needed(subscription.lease) == subscription.lease

        await eventually(knows)
        yield transport


async def blocked(raw: Links) -> bool:
    """A client waits in a blocking read."""
    return b"\r\nblocked_clients:1\r\n" in await raw.execute("INFO", "clients")


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except Unavailable:
        return False
    return True
