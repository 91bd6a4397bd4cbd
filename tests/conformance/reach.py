"""Ways to a Redis server that tests share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from eventbus.contract.delivery import Subscription
from eventbus.errors import Unavailable
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link
from tests.waiting import eventually


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

        async def knows() -> bool:
            return transport._pulse.age_needed(subscription.lease) == subscription.lease

        await eventually(knows)
        yield transport


async def blocked(raw: Link) -> bool:
    """A client waits in a blocking read."""
    return b"\r\nblocked_clients:1\r\n" in await raw.execute("INFO", "clients")


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except Unavailable:
        return False
    return True
