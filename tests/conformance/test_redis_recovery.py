"""What Redis may lose: events are delayed by it, and nothing else."""

import asyncio

import pytest
from structlog.testing import capture_logs

from eventbus.contract.delivery import Ack, Dead, Retry
from eventbus.contract.retention import Retention
from eventbus.event import Status
from eventbus.redis import RedisTransport
from eventbus.redis.keys import group_keys, stream_keys
from eventbus.redis.links import Links
from tests.conformance.reach import blocked
from tests.samples import FAILED, STREAM, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.waiting import eventually

KEYS = stream_keys("eb", STREAM)
RECORDS = group_keys("eb", STREAM, "billing")
ANN, BOB = consumer("ann"), consumer("bob")


@pytest.fixture
def transport(redis_transport: RedisTransport) -> RedisTransport:
    return redis_transport


# What stands beside the pending list ----------------------------------------------------------------------------------


async def test_what_rests_comes_back_when_its_due_times_are_lost(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(1, 2))
    await settle(transport, await receive(transport, ANN, 2), Retry(3600.0, FAILED))
    await raw.execute("DEL", RECORDS.retry)
    deliveries = await reclaim(transport, BOB, 2)
    assert sorted(numbers(deliveries)) == [1, 2]
    assert [delivery.failures for delivery in deliveries] == [1, 1]


async def test_one_lost_due_time_is_found_among_others(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(1, 2, 3))
    deliveries = await receive(transport, ANN, 3)
    await settle(transport, deliveries, Retry(3600.0, FAILED))
    await raw.execute("ZREM", RECORDS.retry, deliveries[1].entry_id)
    assert numbers(await reclaim(transport, BOB)) == [2]
    assert (await transport.reclaim(BOB, 10)).deliveries == []


async def test_lost_failure_records_start_the_count_again(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Retry(0.0, FAILED))
    await raw.execute("DEL", RECORDS.failures)
    deliveries = await reclaim(transport, ANN)
    assert deliveries[0].failures == 0
    await settle(transport, deliveries, Dead(FAILED, 1))
    [letter] = await transport.dead_letters(STREAM)
    assert letter.first_failed_at <= letter.died_at


async def test_lost_crash_records_start_the_count_again(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(1))
    await receive(transport, consumer("first", lease=0.1))
    await reclaim(transport, consumer("second", lease=0.1))
    await raw.execute("DEL", RECORDS.crashes)
    [delivery] = await reclaim(transport, consumer("third", lease=0.1))
    assert delivery.crashes == 1


async def test_nothing_is_kept_beside_what_is_done_or_dead(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(*range(4)))
    await receive(transport, consumer("died", lease=0.1), 4)
    deliveries = await reclaim(transport, consumer("heir", lease=0.1), 4)
    await settle(transport, deliveries[:2], Retry(0.0, FAILED))
    deliveries[:2] = await reclaim(transport, consumer("heir"), 2)
    await settle(transport, deliveries[::2], Ack())
    await settle(transport, deliveries[1::2], Dead(FAILED, 1))
    assert await raw.execute("EXISTS", *RECORDS) == 0


async def test_an_entry_that_is_gone_from_the_stream_is_forgotten(transport: RedisTransport, raw: Links) -> None:
    await transport.append(outgoing(1, 2, 3))
    one, two, _ = await receive(transport, consumer("died", lease=0.1), 3)
    await settle(transport, [one], Retry(0.0, FAILED))
    await raw.execute("XDEL", KEYS.stream, one.entry_id, two.entry_id)
    left = await reclaim(transport, consumer("heir", lease=0.1))
    assert numbers(left) == [3]
    await settle(transport, left, Ack())
    assert await nothing_left(transport, consumer("heir", lease=0.1))
    assert await raw.execute("EXISTS", *RECORDS) == 0
    assert (await raw.execute("XPENDING", KEYS.stream, "billing"))[0] == 0


async def test_a_consumer_that_is_idle_and_holds_nothing_is_forgotten(
    transport: RedisTransport, raw: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watermill-redisstream#24: a consumer that was deleted took its pending entries with it."""
    monkeypatch.setattr("eventbus.redis.tidying.CONSUMER_TTL", 50)
    await transport.append(outgoing(1, 2))
    await receive(transport, consumer("holds one"))
    await settle(transport, await receive(transport, consumer("holds none")), Ack())
    await asyncio.sleep(0.06)
    assert (await transport.tidy(STREAM, Retention())).consumers > 0
    names = {info[1] for info in await raw.execute("XINFO", "CONSUMERS", KEYS.stream, "billing")}
    assert b"holds one" in names
    assert b"holds none" not in names


# Groups and scripts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [("XGROUP", "DESTROY", KEYS.stream, "billing"), ("DEL", KEYS.stream), ("FLUSHDB",)])
async def test_a_group_that_is_lost_under_a_read_comes_back_at_the_beginning(
    transport: RedisTransport, raw: Links, loss: tuple[str, ...]
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
    transport: RedisTransport, raw: Links
) -> None:
    await transport.append(outgoing(1, 2))
    in_hand = await receive(transport, ANN)
    await raw.execute("XGROUP", "DESTROY", KEYS.stream, "billing")
    again = await receive(transport, ANN)
    assert numbers(again) == [2]
    await settle(transport, [*in_hand, *again], Ack())
    assert await nothing_left(transport, BOB)


async def test_a_lost_group_stops_neither_reclaim_nor_renew_nor_settle_for_good(
    transport: RedisTransport, raw: Links
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


async def test_scripts_may_be_flushed_between_any_two_calls(transport: RedisTransport, raw: Links) -> None:
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
