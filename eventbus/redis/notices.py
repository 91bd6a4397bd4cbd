"""Pub/sub: notices for whoever listens now. redis-py does this well, and it is on no hot path."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, RedisError

from eventbus.errors import EventBusError
from eventbus.process.open_files import exhausted
from eventbus.process.safe_logging import get_logger
from eventbus.redis.address import Where
from eventbus.redis.clients import client_of

RETRY_PAUSE = 1.0  # seconds
LOOK = 1.0  # seconds between looks whether the primary has moved
SILENCE = 5.0  # seconds after which the server is asked for a sign of life, and has as long to give it

log = get_logger("eventbus.redis")


async def listen(where: Where, channel: str, joined: Callable[[], None] | None = None) -> AsyncGenerator[bytes, None]:
    """Messages of a channel, for ever. What is sent while the server is away is lost: that is pub/sub's promise.

    `joined` is called whenever the server has confirmed the subscription: in the beginning, and behind every gap."""
    refused = False
    while True:
        moves = where.moves
        try:
            async with _subscribed(where, channel) as pubsub:
                while True:
                    message = await _next(pubsub, where, moves)
                    match message["type"]:
                        case "message":
                            yield message["data"]
                        case "subscribe":  # again when the client has reconnected by itself
                            refused = _note(channel, None, refused)
                            if joined is not None:
                                joined()
        except NoPermissionError as error:
            _check_cancelled()
            refused = _note(channel, str(error), refused)
            await asyncio.sleep(RETRY_PAUSE)
        except (RedisError, OSError, EventBusError) as error:
            _check_cancelled()
            exhausted(error)
            log.debug("listening again soon", channel=channel, reason=str(error))
            await asyncio.sleep(RETRY_PAUSE)


def _check_cancelled() -> None:
    """Before Python 3.12, asyncio.wait_for loses a cancellation that comes as it ends, and redis-py connects with it:
    the listener would listen on for ever, and whoever has cancelled it would wait."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _note(channel: str, refusal: str | None, refused: bool) -> bool:
    """One line when this login may not listen, which somebody must mend, and one when it may. Returns whether it is
    refused now; `refused`: whether it was."""
    if refusal is not None and not refused:
        log.error("this login may not listen: nothing that is pushed arrives here", channel=channel, reason=refusal)
    elif refusal is None and refused:
        log.info("listening", channel=channel)
    return refusal is not None


@asynccontextmanager
async def _subscribed(where: Where, channel: str) -> AsyncIterator[PubSub]:
    """The client tries a lost connection again once; then its address is asked for anew."""
    async with client_of((await where.find()).url, retries=1, socket_timeout=SILENCE) as client:
        pubsub = client.pubsub()
        await pubsub.subscribe(channel)
        _check_cancelled()
        yield pubsub


async def _next(pubsub: PubSub, where: Where, moves: int) -> dict[str, Any]:
    """The next message from the server. redis-py sends pings of its own, but does not notice that no answer comes: on a
    half-open connection it would listen for ever. Raises OSError, also when the primary has moved since `moves`."""
    loop = asyncio.get_running_loop()
    for asked in (False, True):
        if asked:
            await pubsub.ping()
        deadline = loop.time() + SILENCE
        while True:
            left = deadline - loop.time()
            message = await pubsub.get_message(timeout=max(0.0, min(left, LOOK)))
            if message is not None:
                return dict(message)
            if where.moves != moves:
                raise OSError("the primary has moved")
            _check_cancelled()
            if left <= 0:
                break
    raise TimeoutError(f"no sign of life within {SILENCE:g} s")
