"""What Redis may lose, and what may be lost on the way from it: events are delayed by it, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from eventbus.errors import Unavailable
from eventbus.event import Status
from eventbus.redis import RedisTransport
from eventbus.redis.keys import group_keys
from eventbus.redis.link import Link
from eventbus.transport import Ack, Dead, Delivery, Release, Retry, Subscription
from tests.proxy import Proxy
from tests.samples import FAILED, STREAM, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.waiting import eventually

KEYS = group_keys("eb", STREAM, "billing")
ANN, BOB = consumer("ann"), consumer("bob")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(url)
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
async def raw(any_redis_url: str) -> AsyncIterator[Link]:
    """To do to the server what nobody should."""
    link = Link(any_redis_url, timeout=5, name="test")
    yield link
    await link.close()


@pytest.fixture
async def transport(any_redis_url: str) -> AsyncIterator[RedisTransport]:
    async with connected(any_redis_url) as transport:
        yield transport


# What stands beside the pending list ----------------------------------------------------------------------------------


async def test_what_rests_comes_back_when_its_due_times_are_lost(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(1, 2))
    await settle(transport, await receive(transport, ANN, 2), Retry(3600.0, FAILED))
    await raw.execute("DEL", KEYS.retry)
    deliveries = await reclaim(transport, BOB, 2)
    assert sorted(numbers(deliveries)) == [1, 2]
    assert [delivery.failures for delivery in deliveries] == [1, 1]


async def test_one_lost_due_time_is_found_among_others(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(1, 2, 3))
    deliveries = await receive(transport, ANN, 3)
    await settle(transport, deliveries, Retry(3600.0, FAILED))
    await raw.execute("ZREM", KEYS.retry, deliveries[1].entry_id)
    assert numbers(await reclaim(transport, BOB)) == [2]
    assert (await transport.reclaim(BOB, 10)).deliveries == []


async def test_lost_failure_records_start_the_count_again(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Retry(0.0, FAILED))
    await raw.execute("DEL", KEYS.failures)
    deliveries = await reclaim(transport, ANN)
    assert deliveries[0].failures == 0
    await settle(transport, deliveries, Dead(FAILED, 1))
    [letter] = await transport.dead_letters(STREAM)
    assert letter.first_failed_at <= letter.died_at


async def test_lost_crash_records_start_the_count_again(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(1))
    await receive(transport, consumer("first", lease=0.1))
    await reclaim(transport, consumer("second", lease=0.1))
    await raw.execute("DEL", KEYS.crashes)
    [delivery] = await reclaim(transport, consumer("third", lease=0.1))
    assert delivery.crashes == 1


async def test_nothing_is_kept_beside_what_is_done_or_dead(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(*range(4)))
    await receive(transport, consumer("died", lease=0.1), 4)
    deliveries = await reclaim(transport, consumer("heir", lease=0.1), 4)
    await settle(transport, deliveries[:2], Retry(0.0, FAILED))
    deliveries[:2] = await reclaim(transport, consumer("heir"), 2)
    await settle(transport, deliveries[::2], Ack())
    await settle(transport, deliveries[1::2], Dead(FAILED, 1))
    assert await raw.execute("EXISTS", *KEYS[1:]) == 0


async def test_an_entry_that_is_gone_from_the_stream_is_forgotten(transport: RedisTransport, raw: Link) -> None:
    await transport.append(outgoing(1, 2, 3))
    one, two, _ = await receive(transport, consumer("died", lease=0.1), 3)
    await settle(transport, [one], Retry(0.0, FAILED))
    await raw.execute("XDEL", KEYS.stream, one.entry_id, two.entry_id)
    left = await reclaim(transport, consumer("heir", lease=0.1))
    assert numbers(left) == [3]
    await settle(transport, left, Ack())
    assert await nothing_left(transport, consumer("heir", lease=0.1))
    assert await raw.execute("EXISTS", *KEYS[1:]) == 0
    assert (await raw.execute("XPENDING", KEYS.stream, "billing"))[0] == 0


async def test_a_consumer_that_is_idle_and_holds_nothing_is_forgotten(
    transport: RedisTransport, raw: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.redis.transport.CONSUMER_TTL", 50)
    await transport.append(outgoing(1, 2))
    await receive(transport, consumer("holds one"))
    await settle(transport, await receive(transport, consumer("holds none")), Ack())
    await asyncio.sleep(0.06)
    await transport.reclaim(ANN, 10)
    names = {info[1] for info in await raw.execute("XINFO", "CONSUMERS", KEYS.stream, "billing")}
    assert b"holds one" in names
    assert b"holds none" not in names


# Groups and scripts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [("XGROUP", "DESTROY", KEYS.stream, "billing"), ("DEL", KEYS.stream), ("FLUSHDB",)])
async def test_a_group_that_is_lost_under_a_read_comes_back_at_the_beginning(
    transport: RedisTransport, raw: Link, loss: tuple[str, ...]
) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Ack())
    reading = asyncio.create_task(transport.read(ANN, 10, 2.0))
    await eventually(lambda: blocked(raw))
    with capture_logs() as lines:
        await raw.execute(*loss)
        async with asyncio.timeout(1):
            assert await reading == []
    assert [line["event"] for line in lines] == ["group created"]
    await transport.append(outgoing(2))
    expected = [1, 2] if loss[0] == "XGROUP" else [2]
    after = await receive(transport, ANN, len(expected))
    assert numbers(after) == expected
    await settle(transport, after, Ack())
    assert await nothing_left(transport, BOB)


async def test_what_is_in_hand_is_not_handed_out_again_by_a_group_that_begins_anew(
    transport: RedisTransport, raw: Link
) -> None:
    await transport.append(outgoing(1, 2))
    in_hand = await receive(transport, ANN)
    await raw.execute("XGROUP", "DESTROY", KEYS.stream, "billing")
    again = await receive(transport, ANN)
    assert numbers(again) == [2]
    await settle(transport, [*in_hand, *again], Ack())
    assert await nothing_left(transport, BOB)


async def test_a_lost_group_stops_neither_reclaim_nor_renew_nor_settle_for_good(
    transport: RedisTransport, raw: Link
) -> None:
    await transport.append(outgoing(1, 2))
    one, two = await receive(transport, ANN, 2)
    await settle(transport, [one], Retry(0.0, FAILED))
    await raw.execute("DEL", KEYS.stream)
    assert (await transport.reclaim(ANN, 10)).deliveries == []
    assert (await transport.reclaim(ANN, 10)).deliveries == []
    assert await transport.renew([two]) == [two]
    await settle(transport, [two], Retry(0.0, FAILED))
    await transport.append(outgoing(3))
    assert numbers(await receive(transport, ANN)) == [3]


async def test_scripts_may_be_flushed_between_any_two_calls(transport: RedisTransport, raw: Link) -> None:
    async def flushed() -> RedisTransport:
        await raw.execute("SCRIPT", "FLUSH")
        return transport

    late = outgoing(1, delay=0.05)
    assert await (await flushed()).append([*late, *outgoing(2)]) == [Status.SCHEDULED, Status.STORED]
    assert await (await flushed()).append(late, again=True) == [Status.DUPLICATE]
    await asyncio.sleep(0.06)
    await (await flushed()).reclaim(ANN, 10)
    deliveries = await receive(transport, ANN, 2)
    assert numbers(deliveries) == [2, 1]
    assert await (await flushed()).renew(deliveries) == []
    await settle(await flushed(), deliveries, Retry(0.0, FAILED))
    deliveries = await reclaim(await flushed(), ANN, 2)
    assert [delivery.failures for delivery in deliveries] == [1, 1]
    await settle(await flushed(), deliveries[:1], Ack())
    await settle(await flushed(), deliveries[1:], Dead(FAILED, 2))
    [letter] = await transport.dead_letters(STREAM)
    assert await (await flushed()).replay(letter)
    assert await (await flushed()).append(outgoing(3), again=True) == [Status.STORED]


# Connections ----------------------------------------------------------------------------------------------------------


async def test_a_publish_whose_reply_was_lost_is_stored_once(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(0, delay=60.0))  # the server knows the script from now on
        for items in (outgoing(1), outgoing(2, 3), outgoing(4, delay=60.0)):
            await transport.connect()
            lost = proxy.lose_next_reply()
            with pytest.raises(Unavailable):
                await transport.append(items)
            assert lost.is_set()
            assert await transport.append(items, again=True) == [Status.DUPLICATE] * len(items)
        assert numbers(await receive(transport, ANN, 3)) == [1, 2, 3]


async def test_a_killed_connection_under_a_read_loses_nothing(transport: RedisTransport, raw: Link) -> None:
    await transport.read(ANN, 1, 0.01)
    seen: list[int] = []

    async def consume() -> bool:
        try:
            deliveries = await transport.read(ANN, 3, 0.2)
        except Unavailable:
            return False
        seen.extend(numbers(deliveries))
        await eventually(lambda: answered(lambda: settle(transport, deliveries, Ack())))
        return len(seen) >= 200

    consuming = asyncio.create_task(eventually(consume))
    for start in range(0, 200, 10):
        await append_somehow(transport, start)
        await raw.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await consuming
    assert sorted(seen) == list(range(200))
    await eventually(lambda: nothing_left(transport, BOB))


async def test_deliveries_whose_reply_was_lost_are_handed_out_again_once(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport, connected(any_redis_url) as publisher:
        await publisher.append(outgoing(1))
        in_hand = await receive(transport, ANN)
        lost = proxy.lose_next_reply()
        reading = asyncio.create_task(transport.read(ANN, 10, 2.0))
        await publisher.append(outgoing(2, 3))
        with pytest.raises(Unavailable):
            await reading
        assert lost.is_set()
        again = await receive(transport, ANN, 2)
        assert sorted(numbers(again)) == [2, 3], "and not 1, which is in hand"
        await settle(transport, [*in_hand, *again], Ack())
        assert await nothing_left(transport, ANN)


async def test_more_than_the_credit_was_lost_and_comes_in_portions(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(*range(7)))
        await transport.read(ANN, 1, 0.01)
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await transport.read(ANN, 7, 1.0)
        found: list[Delivery] = []
        while len(found) < 7:
            portion = await transport.read(ANN, 3, 0.05)
            assert len(portion) <= 3
            found += portion
        assert sorted(numbers(found)) == list(range(7))


async def test_an_outcome_whose_reply_was_lost_does_not_meet_the_next_delivery(any_redis_url: str) -> None:
    """It is repeated, and by then the event may be due again: until the repeat is confirmed, it stays in hand."""
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1))
        await settle(transport, await receive(transport, ANN), Release())  # the server knows the script from now on
        deliveries = await reclaim(transport, ANN)
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await settle(transport, deliveries, Retry(0.0, FAILED))
        assert await transport.renew(deliveries) == deliveries
        assert (await transport.reclaim(ANN, 10)).deliveries == []
        await settle(transport, deliveries, Retry(0.0, FAILED))
        again = await reclaim(transport, ANN)
        assert again[0].failures == 1
        await settle(transport, again, Ack())
        assert await nothing_left(transport, ANN)


async def test_a_lost_reclaim_comes_back_with_its_failures(any_redis_url: str) -> None:
    """To the same consumer, for there may be no other, and without a crash to its name: nobody died."""
    ann = consumer("ann", lease=0.3)
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1))
        await settle(transport, await receive(transport, ann), Retry(0.0, FAILED))
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await transport.reclaim(ann, 10)
        [delivery] = await reclaim(transport, ann)
        assert (delivery.failures, delivery.crashes) == (1, 0)


async def test_a_lost_reclaim_is_found_by_the_next_read_if_both_connections_broke(any_redis_url: str) -> None:
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as transport:
        await transport.append(outgoing(1))
        await receive(transport, consumer("died", lease=0.1))
        await asyncio.sleep(0.11)
        await transport.read(ANN, 1, 0.01)
        proxy.lose_next_reply()
        with pytest.raises(Unavailable):
            await transport.reclaim(consumer("ann", lease=0.1), 10)
        proxy.cut()
        [delivery] = await receive_patiently(transport, consumer("ann", lease=0.1))
        assert (delivery.failures, delivery.crashes) == (0, 1)


async def test_an_abandoned_read_costs_a_lease_and_no_event(transport: RedisTransport, raw: Link) -> None:
    ann = consumer("ann", lease=0.3)
    await transport.read(ann, 1, 0.01)
    reading = asyncio.create_task(transport.read(ann, 10, 5.0))
    await eventually(lambda: blocked(raw))
    reading.cancel()
    await transport.append(outgoing(1))
    [delivery] = await reclaim(transport, ann)
    assert (numbers([delivery]), delivery.crashes) == ([1], 0)


async def test_after_a_reconnect_others_have_a_lease_to_renew_first(any_redis_url: str) -> None:
    """Leases ran on while the server was away: who comes back first must not take everything."""
    async with Proxy(any_redis_url) as proxy, connected(proxy.url) as bob, connected(any_redis_url) as ann:
        lease = 0.5
        await ann.append(outgoing(1, 2))
        deliveries = await receive(ann, consumer("ann", lease=lease), 2)
        await settle(ann, deliveries[:1], Retry(0.0, FAILED))
        await bob.connect()
        await asyncio.sleep(lease * 1.1)
        proxy.cut()
        await eventually(lambda: connects(bob))
        found = await bob.reclaim(consumer("bob", lease=lease), 10)
        assert numbers(found.deliveries) == [1], "what rests until it is due is nobody's, and needs no patience"
        assert await ann.renew(deliveries[1:]) == []
        await asyncio.sleep(lease * 1.1)
        assert numbers(await reclaim(bob, consumer("bob", lease=lease))) == [2]


async def blocked(raw: Link) -> bool:
    """A client waits in a blocking read."""
    return b"\r\nblocked_clients:1\r\n" in await raw.execute("INFO", "clients")


async def connects(transport: RedisTransport) -> bool:
    return await answered(transport.connect)


async def append_somehow(transport: RedisTransport, start: int) -> None:
    items = outgoing(*range(start, start + 10))
    if not await answered(lambda: transport.append(items)):
        await eventually(lambda: answered(lambda: transport.append(items, again=True)))


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except Unavailable:
        return False
    return True


async def receive_patiently(transport: RedisTransport, subscription: Subscription) -> list[Delivery]:
    async def one() -> list[Delivery]:
        try:
            return await transport.read(subscription, 1, 0.1)
        except Unavailable:
            return []

    return await eventually(one)
