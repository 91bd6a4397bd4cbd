"""Broadcasts reach whoever listens now; a closed transport leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from eventbus import EventBus
from eventbus.contract.broker import Broker
from eventbus.contract.states import Keep, Phase, Update
from eventbus.event import uuid7
from eventbus.redis import RedisTransport, notices
from eventbus.redis.links import Links
from tests.conformance.conftest import MEMORY
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


@asynccontextmanager
async def neighbours(name: str, redis_servers: Callable[[str], str]) -> AsyncIterator[list[Broker]]:
    """One at home, and others who must not be told apart from it by accident: of another namespace, another database,
    and of a namespace that looks as if it named a database."""
    own = f"test-{uuid4().hex}"
    if name == MEMORY:
        yield [EventBus("memory://", namespace=namespace).transport for namespace in (own, f"{own}2", f"{own}:0")]
        return
    url = redis_servers(name)
    parts = urlsplit(url)
    database = int(parts.path.strip("/") or 0)
    elsewhere = parts._replace(path=f"/{(database + 8) % 16}").geturl()
    transports = [
        RedisTransport(url, namespace=own),
        RedisTransport(url, namespace=f"{own}2"),
        RedisTransport(elsewhere, namespace=own),
        RedisTransport(url, namespace=f"{own}:{database}"),
    ]
    try:
        yield list[Broker](transports)
    finally:
        for transport in transports:
            await transport.close()


@pytest.mark.one_server
async def test_who_shares_a_server_hears_his_own_alone(
    transport_name: str, redis_servers: Callable[[str], str]
) -> None:
    async with neighbours(transport_name, redis_servers) as (home, *others), AsyncExitStack() as stack:
        all_of_them = [home, *others]
        hearing = [await stack.enter_async_context(listening(each, "news")) for each in all_of_them]
        for number, each in enumerate(all_of_them):
            await each.broadcast("news", b"%d" % number)
        for number, heard in enumerate(hearing):
            assert await message(heard) == b"%d" % number, "what others broadcast before is not heard"


@pytest.mark.one_server
async def test_nor_does_he_hear_of_others_tracked_events(redis_name: str, redis_servers: Callable[[str], str]) -> None:
    async with neighbours(redis_name, redis_servers) as (home, *others), AsyncExitStack() as stack:
        heard = await stack.enter_async_context(_queued(home.records.watch("bakers")))

        async def subscribed() -> bool:
            await _tell(home, PROBE)
            return not heard.empty()

        await eventually(subscribed)
        for other in others:
            await _tell(other, b"of others")
        await _tell(home, b"of ours")
        assert await message(heard) == b"of ours"


async def _tell(transport: Broker, notice: bytes) -> None:
    await transport.records.track("bakers", Keep(1, 1), [Update(uuid7(), "1", Phase.ACTIVE, {}, (notice,))])


async def test_who_was_cut_off_is_told_when_he_hears_again(redis_transport: RedisTransport, raw: Links) -> None:
    joined: asyncio.Queue[None] = asyncio.Queue()
    async with _hearing(redis_transport, "news", lambda: joined.put_nowait(None)) as heard:
        for number in range(3):
            await asyncio.wait_for(joined.get(), PATIENCE)
            await redis_transport.broadcast("news", b"%d" % number)
            assert await message(heard) == b"%d" % number
            await raw.execute("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.parametrize("later", range(6))
async def test_who_stops_listening_as_his_connection_breaks_has_stopped(
    redis_transport: RedisTransport, raw: Links, later: int
) -> None:
    joined = asyncio.Event()

    async def listen() -> None:
        async for _ in redis_transport.listen("news", joined.set):
            pass

    for _ in range(3):
        joined.clear()
        listening = asyncio.create_task(listen())
        await asyncio.wait_for(joined.wait(), PATIENCE)
        await raw.execute("CLIENT", "KILL", "TYPE", "pubsub")
        for _ in range(later):
            await asyncio.sleep(0)
        listening.cancel()
        assert await asyncio.wait([listening], timeout=PATIENCE) == ({listening}, set())


@pytest.mark.one_server
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
    async with _queued(transport.listen(channel, joined)) as heard:
        yield heard


@asynccontextmanager
async def _queued(messages: AsyncIterator[bytes]) -> AsyncIterator[asyncio.Queue[bytes]]:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen() -> None:
        async for message in messages:
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
