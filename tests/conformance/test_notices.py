"""Broadcasts reach whoever listens now; a closed transport leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from eventbus.contract.broker import Broker
from eventbus.redis import RedisTransport, notices
from eventbus.redis.link import Link
from tests.conformance.reach import connected
from tests.proxy import Proxy
from tests.samples import consumer, outgoing, receive
from tests.waiting import PATIENCE, eventually

PROBE = b"does anybody hear?"


async def test_a_broadcast_reaches_all_who_listen_and_is_kept_for_nobody(transport: Broker) -> None:
    await transport.broadcast("news", b"nobody hears this")
    async with listening(transport, "news") as first, listening(transport, "news") as second:
        await transport.broadcast("weather", b"another channel")
        await transport.broadcast("news", b"a\x00\xff")
        assert await message(first) == await message(second) == b"a\x00\xff"


async def test_who_listens_is_told_when_he_has_joined(transport: Broker) -> None:
    joined = asyncio.Event()
    async with _hearing(transport, "news", joined.set) as heard:
        await asyncio.wait_for(joined.wait(), PATIENCE)
        await transport.broadcast("news", b"at once")
        assert await message(heard) == b"at once"


async def test_who_was_cut_off_is_told_when_he_hears_again(redis_transport: RedisTransport, raw: Link) -> None:
    joined: asyncio.Queue[None] = asyncio.Queue()
    async with _hearing(redis_transport, "news", lambda: joined.put_nowait(None)) as heard:
        for number in range(3):
            await asyncio.wait_for(joined.get(), PATIENCE)
            await redis_transport.broadcast("news", b"%d" % number)
            assert await message(heard) == b"%d" % number
            await raw.execute("CLIENT", "KILL", "TYPE", "pubsub")


async def test_a_connection_that_is_half_open_is_noticed(any_redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody hung up, and nothing comes any more."""
    monkeypatch.setattr(notices, "SILENCE", 0.2)
    joined: asyncio.Queue[None] = asyncio.Queue()
    async with (
        Proxy(any_redis_url) as proxy,
        connected(any_redis_url) as other,
        connected(proxy.url) as transport,
        _hearing(transport, "news", lambda: joined.put_nowait(None)) as heard,
    ):
        await asyncio.wait_for(joined.get(), PATIENCE)
        await asyncio.sleep(1.0)
        assert joined.empty(), "silence alone is no reason"
        proxy.blackhole()
        await other.broadcast("news", b"lost")
        await asyncio.wait_for(joined.get(), PATIENCE)
        await other.broadcast("news", b"heard")
        assert await message(heard) == b"heard"


async def test_closing_leaves_no_task_behind(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await receive(transport, consumer())
    await transport.close()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


@asynccontextmanager
async def listening(transport: Broker, channel: str) -> AsyncIterator[asyncio.Queue[bytes]]:
    """What a listener hears, from the moment on when it is known to listen."""
    async with _hearing(transport, channel) as heard:

        async def subscribed() -> bool:
            await transport.broadcast(channel, PROBE)
            return not heard.empty()

        await eventually(subscribed)
        yield heard


@asynccontextmanager
async def _hearing(
    transport: Broker, channel: str, joined: Callable[[], None] | None = None
) -> AsyncIterator[asyncio.Queue[bytes]]:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen() -> None:
        async for message in transport.listen(channel, joined):
            heard.put_nowait(message)

    task = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def message(heard: asyncio.Queue[bytes]) -> bytes:
    """The next one that is no probe."""
    async with asyncio.timeout(PATIENCE):
        while (heard_now := await heard.get()) == PROBE:
            pass
        return heard_now
