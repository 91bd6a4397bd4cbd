"""Pub/sub: notices for whoever listens now. redis-py does this well, and it is on no hot path."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from eventbus.process.safe_logging import get_logger

RETRY_PAUSE = 1.0  # seconds
SILENCE = 5.0  # seconds after which the server is asked for a sign of life, and has as long to give it

log = get_logger("eventbus.redis")


async def listen(url: str, channel: str, joined: Callable[[], None] | None = None) -> AsyncIterator[bytes]:
    """Messages of a channel, for ever. What is sent while the server is away is lost: that is pub/sub's promise.

    `joined` is called whenever the server has confirmed the subscription: in the beginning, and behind every gap."""
    while True:
        client = Redis.from_url(url, protocol=2, socket_timeout=SILENCE)
        try:
            async with client.pubsub() as pubsub:
                await pubsub.subscribe(channel)
                while True:
                    message = await _next(pubsub)
                    match message["type"]:
                        case "message":
                            yield message["data"]
                        case "subscribe" if joined is not None:  # again when the client has reconnected by itself
                            joined()
        except (RedisError, OSError) as error:
            log.debug("listening again soon", channel=channel, reason=str(error))
            await asyncio.sleep(RETRY_PAUSE)
        finally:
            await client.aclose()


async def _next(pubsub: PubSub) -> dict[str, Any]:
    """The next message from the server. redis-py sends pings of its own, but does not notice that no answer comes: on a
    half-open connection it would listen for ever. Raises TimeoutError."""
    message = await pubsub.get_message(timeout=SILENCE)
    if message is None:
        await pubsub.ping()
        message = await pubsub.get_message(timeout=SILENCE)
    if message is None:
        raise TimeoutError(f"no sign of life within {SILENCE:g} s")
    return dict(message)
