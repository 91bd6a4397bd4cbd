"""Pub/sub: notices for whoever listens now. redis-py does this well, and it is on no hot path."""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

RETRY_PAUSE = 1.0  # seconds
HEALTH_CHECK = 10  # seconds; finds a connection that is half open

log = structlog.get_logger("eventbus.redis")


async def listen(url: str, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
    """Messages of a channel, for ever. What is sent while the server is away is lost: that is pub/sub's promise.

    `joined` is called whenever the server has confirmed the subscription: in the beginning, and behind every gap."""
    while True:
        client = Redis.from_url(url, protocol=2, health_check_interval=HEALTH_CHECK, socket_timeout=HEALTH_CHECK + 5)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(channel)
                while True:
                    message = await pubsub.get_message(timeout=HEALTH_CHECK / 2)
                    match message and message["type"]:
                        case "message":
                            yield message["data"]
                        case "subscribe" if joined is not None:  # again when the client has reconnected by itself
                            joined()
        except (RedisError, OSError) as error:
            log.debug("listening again soon", channel=channel, reason=str(error))
            await asyncio.sleep(RETRY_PAUSE)
        finally:
            await client.aclose()
