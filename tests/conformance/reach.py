"""Ways to a Redis server that tests share."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from eventbus.errors import Unavailable
from eventbus.redis import RedisTransport
from eventbus.redis.link import Link


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(url)
    try:
        yield transport
    finally:
        await transport.close()


async def blocked(raw: Link) -> bool:
    """A client waits in a blocking read."""
    return b"\r\nblocked_clients:1\r\n" in await raw.execute("INFO", "clients")


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except Unavailable:
        return False
    return True
