"""Publishing through a network and a server that have their bad days: stored once, or told within the timeout."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from redis.asyncio import Redis

from eventbus import Event, EventBus
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Delivery
from eventbus.embedded.ports import free_port
from eventbus.errors import CodecError, ConfigurationError, Full, Unavailable
from eventbus.event import Origin, Receipt, Status
from eventbus.redis import RedisTransport
from tests.proxy import Proxy
from tests.samples import consumer, receive
from tests.servers import OwnRedis
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually, until

READER = consumer(group="readers", stream="letter")


class Sent(Event, type="letter.sent"):
    number: int = 0


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[RedisTransport]:
    """Somebody who is not behind the proxy."""
    transport = RedisTransport(url)
    try:
        yield transport
    finally:
        await transport.close()


async def stored(url: str) -> list[Delivery]:
    async with reading(url) as transport:
        await transport.read(READER, 1, 0.01)
        return await transport.read(READER, 10_000, 0.1)


async def test_a_receipt_tells_what_became_of_an_event(redis_url: str) -> None:
    async with EventBus(redis_url) as bus:
        now, later = await bus.publish(Sent(number=1), key="k", priority=1), await bus.publish(Sent(), delay=60.0)
        many = await bus.publish_many([Sent(number=2), Sent(number=3)], origin=Origin(correlation_id="c"))
    assert (now.status, later.status, [receipt.status for receipt in many]) == (
        Status.STORED,
        Status.SCHEDULED,
        [Status.STORED, Status.STORED],
    )
    envelopes = [decode(delivery.fields) for delivery in await stored(redis_url)]
    assert [envelope.id for envelope in envelopes] == [now.id, *(receipt.id for receipt in many)]
    assert (envelopes[0].subject, envelopes[0].priority, envelopes[1].correlation_id) == ("k", 1, "c")


async def test_a_publish_whose_reply_was_lost_is_repeated_and_stored_once(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, EventBus(proxy.url) as bus:
        for number in range(5):
            lost = proxy.lose_next_reply()
            receipt = await bus.publish(Sent(number=number))
            assert lost.is_set()
            assert receipt.status == Status.DUPLICATE
    assert len(await stored(redis_url)) == 5


async def test_publishes_through_a_network_that_breaks_all_the_time_are_stored_once(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, EventBus(proxy.url, publish_timeout=20.0) as bus:
        published: list[str] = []

        async def publish(number: int) -> None:
            published.append((await bus.publish(Sent(number=number))).id)

        def enough(count: int) -> bool:
            return len(published) >= count

        async def cut() -> None:
            while True:
                wanted = len(published) + 15
                proxy.cut()
                await asyncio.sleep(0.02)
                await until(partial(enough, wanted))  # a slow machine must get through, too

        cutting = asyncio.create_task(cut())
        for _ in range(40):
            await asyncio.gather(*(publish(number) for number in range(20)))
        cutting.cancel()
        await asyncio.wait([cutting])
    ids = [decode(delivery.fields).id for delivery in await stored(redis_url)]
    assert sorted(ids) == sorted(published)


async def test_a_frozen_server_is_told_within_the_timeout(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, EventBus(proxy.url, publish_timeout=0.5) as bus:
        await bus.publish(Sent())
        proxy.freeze()
        with Stopwatch() as watch:
            failures = await asyncio.gather(*(bus.publish(Sent()) for _ in range(50)), return_exceptions=True)
        assert {type(failure) for failure in failures} == {Unavailable}
        assert watch.seconds < 5.0, "one after the other they took 25 s"


async def test_a_server_that_comes_back_in_time_is_waited_for(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with EventBus(server.url, publish_timeout=20.0) as bus:
        server.kill()
        publishing = [asyncio.create_task(bus.publish(Sent(number=number))) for number in range(100)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)
        receipts = await asyncio.gather(*publishing)
        ids = [decode(delivery.fields).id for delivery in await stored(server.url)]
        assert sorted(ids) == sorted(receipt.id for receipt in receipts)


async def test_a_full_server_is_told_at_once(own_redis: OwnRedis) -> None:
    async with EventBus(own_redis(options={"maxmemory": "1mb"}).url) as bus:
        with Stopwatch() as watch, pytest.raises(Full):
            await bus.publish(Sent())
        assert watch.seconds < 4, "the publish timeout is 5 s"


async def test_a_cancelled_publish_disturbs_no_other(redis_url: str) -> None:
    async with EventBus(redis_url) as bus:
        tasks = [asyncio.create_task(bus.publish(Sent(number=number))) for number in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        published = {result.id for result in results if not isinstance(result, BaseException)}
    assert published <= {decode(delivery.fields).id for delivery in await stored(redis_url)}


async def test_a_bus_that_cannot_reach_its_server_does_not_open(redis_url: str) -> None:
    with pytest.raises(Unavailable):
        async with EventBus(f"redis://127.0.0.1:{free_port()}"):
            pass
    with pytest.raises(ConfigurationError):
        async with EventBus(redis_url.replace("redis://:", "redis://:not")):
            pass
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


async def test_a_listener_hears_again_after_the_server_was_away(own_redis: OwnRedis) -> None:
    server = own_redis()
    async with EventBus(server.url) as bus:
        heard: list[bytes] = []

        async def listen() -> None:
            async for message in bus.shared.listen("news"):
                heard.append(message)  # noqa: PERF401 - it never ends

        async def hears() -> bool:
            heard.clear()
            try:
                await bus.shared.broadcast("news", b"hello")
            except Unavailable:
                return False
            await asyncio.sleep(0.02)
            return heard == [b"hello"]

        listening = asyncio.create_task(listen())
        await eventually(hears)
        server.kill()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        await eventually(hears)
        listening.cancel()
        await asyncio.wait([listening])


async def test_what_was_scheduled_is_delivered_by_a_worker_that_was_not_there(redis_url: str) -> None:
    """The publisher is gone by then: its own promotion of what is due soon is a service, no condition."""
    async with EventBus(redis_url) as bus:
        await bus.publish(Sent(), delay=0.2)
    async with reading(redis_url) as transport:
        await asyncio.sleep(0.25)
        await transport.read(READER, 1, 0.01)
        await transport.reclaim(READER, 1)
        await receive(transport, READER)


async def test_of_two_with_a_dedupe_key_the_receipts_name_the_first(redis_url: str) -> None:
    async with EventBus(redis_url) as bus:
        first = await bus.publish(Sent(number=1), dedupe_key="k")
        second = await bus.publish(Sent(number=2), dedupe_key="k")
        assert (first.status, second) == (Status.STORED, Receipt(first.id, Status.DUPLICATE))
        many = await bus.publish_many([Sent(number=3), Sent(number=4), Sent(number=5)], dedupe_keys=["k", None, "l"])
        assert [receipt.status for receipt in many] == [Status.DUPLICATE, Status.STORED, Status.STORED]
        assert many[0].id == first.id
        for key, window in (("", 1.0), ("k", 0.0), ("k\0", 1.0), ("k" * 513, 1.0)):
            with pytest.raises(CodecError):
                await bus.publish(Sent(), dedupe_key=key, dedupe_window=window)
    assert len(await stored(redis_url)) == 3


async def test_a_publish_with_a_dedupe_key_whose_reply_was_lost_is_no_duplicate_of_itself(redis_url: str) -> None:
    async with Proxy(redis_url) as proxy, EventBus(proxy.url) as bus:
        receipts = []
        for number in range(3):
            lost = proxy.lose_next_reply()
            receipts.append(await bus.publish(Sent(number=number), dedupe_key=f"k{number}"))
            assert lost.is_set()
        assert {receipt.status for receipt in receipts} == {Status.STORED}
        ids = [decode(delivery.fields).id for delivery in await stored(redis_url)]
        assert ids == [receipt.id for receipt in receipts]


async def test_a_full_server_keeps_no_key_without_its_event(own_redis: OwnRedis) -> None:
    server = own_redis(options={"maxmemory": "1mb"})
    async with EventBus(server.url) as bus:
        with pytest.raises(Full):
            await bus.publish(Sent(), dedupe_key="k")
        async with Redis.from_url(server.url, socket_timeout=PATIENCE) as client:
            await client.config_set("maxmemory", "100mb")
        assert (await bus.publish(Sent(), dedupe_key="k")).status == Status.STORED
