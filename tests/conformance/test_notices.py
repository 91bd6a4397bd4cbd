"""Broadcasts reach whoever listens now; a closed transport leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from eventbus.transport import Transport
from tests.samples import consumer, outgoing, receive
from tests.waiting import eventually

PROBE = b"does anybody hear?"


async def test_a_broadcast_reaches_all_who_listen_and_is_kept_for_nobody(transport: Transport) -> None:
    await transport.broadcast("news", b"nobody hears this")
    async with listening(transport, "news") as first, listening(transport, "news") as second:
        await transport.broadcast("weather", b"another channel")
        await transport.broadcast("news", b"a\x00\xff")
        assert await message(first) == await message(second) == b"a\x00\xff"


async def test_closing_leaves_no_task_behind(transport: Transport) -> None:
    await transport.append(outgoing(1))
    await receive(transport, consumer())
    await transport.close()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


@asynccontextmanager
async def listening(transport: Transport, channel: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """What a listener hears, from the moment on when it is known to listen."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen() -> None:
        async for message in transport.listen(channel):
            heard.put_nowait(message)

    async def subscribed() -> bool:
        await transport.broadcast(channel, PROBE)
        return not heard.empty()

    task = asyncio.create_task(listen())
    try:
        await eventually(subscribed)
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def message(heard: asyncio.Queue[bytes]) -> bytes:
    """The next one that is no probe."""
    async with asyncio.timeout(10):
        while (heard_now := await heard.get()) == PROBE:
            pass
        return heard_now
