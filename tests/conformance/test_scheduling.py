"""What is kept back until a moment, taken back before it, or comes again and again."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from eventbus.contract.broker import Broker
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Status, uuid7
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.samples import STREAM, consumer, envelope, nothing_left, numbers, outgoing, receive
from tests.waiting import PATIENCE

ANN = consumer("ann")


async def server_time(transport: Broker) -> datetime:
    return (await transport.last_firing(STREAM, "clock")).now


async def arrived(transport: Broker, count: int = 1) -> list[int]:
    """The next deliveries, their due times promoted by this consumer."""
    found: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            await transport.reclaim(ANN, 0)
            found += numbers(await transport.read(ANN, count - len(found), 0.01))
    return found


# At a moment ----------------------------------------------------------------------------------------------------------


async def test_an_event_for_a_moment_is_not_early(transport: Broker) -> None:
    moment = await server_time(transport) + timedelta(seconds=0.3)
    items = [Outgoing(envelope(1), at=moment.astimezone()), Outgoing(envelope(2), at=moment + timedelta(days=3650))]
    assert await transport.append(items) == [Status.SCHEDULED, Status.SCHEDULED]
    assert await arrived(transport) == [1]
    assert await server_time(transport) >= moment
    assert await transport.append(items[1:]) == [Status.DUPLICATE]


@pytest.mark.parametrize("skew", [3600.0, -3600.0], ids=["fast", "slow"])
async def test_a_moment_does_not_depend_on_the_publisher_s_clock(
    transport: Broker, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = await server_time(transport) + timedelta(seconds=0.2)
    true, true_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: true() + skew)
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + int(skew * 1e9))
    monkeypatch.setattr("eventbus.event._ms", 0)  # ids rise within a process: they would stay an hour ahead
    [first, second] = [Outgoing(envelope(number), at=moment) for number in (1, 2)]
    assert await transport.append([first]) == [Status.SCHEDULED]
    assert await transport.append([first, second], again=True) == [Status.DUPLICATE, Status.SCHEDULED]
    assert sorted(await arrived(transport, 2)) == [1, 2]
    assert moment <= await server_time(transport) < moment + timedelta(seconds=10)
    assert await transport.append([first, second], again=True) == [Status.DUPLICATE, Status.DUPLICATE]


async def test_a_moment_that_has_passed_means_now(transport: Broker) -> None:
    past = datetime(1969, 7, 20, 20, 17, tzinfo=UTC)
    items = [Outgoing(envelope(1), at=past), *outgoing(2), Outgoing(envelope(3), at=await server_time(transport))]
    assert await transport.append(items) == [Status.STORED, Status.STORED, Status.STORED]
    assert numbers(await receive(transport, ANN, 3)) == [1, 2, 3]


async def test_what_is_for_a_moment_is_repeated_as_safely_as_anything(transport: Broker) -> None:
    moment = await server_time(transport) + timedelta(seconds=0.2)
    items = [Outgoing(envelope(1), at=moment), Outgoing(envelope(2), at=moment - timedelta(days=1))]
    assert await transport.append(items[:1]) == [Status.SCHEDULED]
    assert await transport.append(items, again=True) == [Status.DUPLICATE, Status.STORED]
    assert sorted(await arrived(transport, 2)) == [1, 2]
    assert await transport.append(items, again=True) == [Status.DUPLICATE, Status.DUPLICATE]
    assert await nothing_left(transport, consumer("bob"))


# Taken back -----------------------------------------------------------------------------------------------------------


async def test_what_was_cancelled_never_comes(transport: Broker) -> None:
    items = outgoing(1, 2, 3, delay=0.1)
    await transport.append(items)
    assert await transport.cancel(items[0].envelope.id, STREAM)
    assert await transport.cancel(items[1].envelope.id), "without a stream it is found as well"
    assert not await transport.cancel(items[0].envelope.id, STREAM), "it is gone already"
    assert await arrived(transport) == [3]
    assert await nothing_left(transport, ANN)


async def test_only_what_is_scheduled_can_be_cancelled(transport: Broker) -> None:
    [stored] = outgoing(1)
    [other] = outgoing(2, stream="parcel", delay=60.0)
    await transport.append([stored, other])
    for event_id in (stored.envelope.id, uuid7(), "no id"):
        assert not await transport.cancel(event_id, STREAM)
        assert not await transport.cancel(event_id)
    assert not await transport.cancel(other.envelope.id, STREAM), "it is in another stream"
    assert await transport.cancel(other.envelope.id)
    assert numbers(await receive(transport, ANN)) == [1]


async def test_of_cancelling_and_delivering_one_wins(transport: Broker) -> None:
    items = [item for number in range(300) for item in outgoing(number, delay=0.1 + 0.001 * (number % 100))]
    await transport.append(items)
    cancelled: set[int] = set()

    async def cancel(number: int, item: Outgoing) -> None:
        await asyncio.sleep(item.delay + random.uniform(-0.1, 0.02))
        if await transport.cancel(item.envelope.id, STREAM):
            cancelled.add(number)

    async def deliver() -> list[int]:
        found: list[int] = []
        while not done.is_set():
            await transport.reclaim(ANN, 0)
            found += numbers(await transport.read(ANN, 100, 0.001))
        return found

    done = asyncio.Event()
    delivering = asyncio.create_task(deliver())
    await asyncio.gather(*(cancel(number, item) for number, item in enumerate(items)))
    done.set()
    found = await delivering
    found += numbers(await transport.read(ANN, 1000, 0.05))
    assert sorted([*found, *cancelled]) == list(range(300))
    assert found, "cancelling won every time: this proves nothing"
    assert cancelled, "delivering won every time: this proves nothing"


# Again and again ------------------------------------------------------------------------------------------------------


async def test_a_record_of_firings_begins_with_the_present(transport: Broker) -> None:
    first = await transport.last_firing(STREAM, "digest")
    assert first.now == first.due
    await asyncio.sleep(0.02)
    again = await transport.last_firing(STREAM, "digest")
    assert (again.due, again.now > first.now) == (first.due, True)


async def test_a_record_of_firings_that_cannot_be_begins_with_the_present(transport: Broker) -> None:
    """The server's clock was ahead once: until that time had come nothing would fire, without a word."""
    now, _ = await transport.last_firing("tick_shop", "close")
    assert await transport.fire(envelope(stream="tick_shop"), "close", now + timedelta(days=1))
    with capture_logs() as logs:
        now, due = await transport.last_firing("tick_shop", "close")
        assert due == now
        assert (await transport.last_firing("tick_shop", "close")).due == due
    assert [line["function"] for line in logs if line["log_level"] == "error"] == ["close"]
    assert await transport.fire(envelope(stream="tick_shop"), "close", due + timedelta(seconds=1))


async def test_whatever_stands_in_a_record_of_firings_it_begins_anew(
    redis_transport: RedisTransport, raw: Links
) -> None:
    for garbage in ("x", "", "-1", "1e400", "9" * 30, "NaN", "0x10", "1.5"):
        await raw.execute("HSET", "eb:{tick_shop}:fired", "close", garbage)
        now, due = await redis_transport.last_firing("tick_shop", "close")
        assert due == now, garbage


async def test_a_firing_is_stored_once_however_many_try(transport: Broker) -> None:
    now, _ = await transport.last_firing(STREAM, "digest")
    due = now + timedelta(milliseconds=1)
    fired = await asyncio.gather(*(transport.fire(envelope(number), "digest", due) for number in range(10)))
    assert sorted(fired) == [False] * 9 + [True]
    assert (await transport.last_firing(STREAM, "digest")).due == due
    assert not await transport.fire(envelope(11), "digest", due - timedelta(milliseconds=1)), "that one is too late"
    assert await transport.fire(envelope(12), "another", due), "each has a record of its own"
    assert await transport.fire(envelope(13), "digest", due + timedelta(milliseconds=1))
    assert numbers(await receive(transport, ANN, 3)) == [fired.index(True), 12, 13]


async def test_what_has_fired_and_is_done_does_not_fire_again(transport: Broker) -> None:
    """The record does not depend on the entry: that is trimmed some time."""
    now, _ = await transport.last_firing(STREAM, "digest")
    assert await transport.fire(envelope(1), "digest", now + timedelta(seconds=1))
    await receive(transport, ANN)
    assert not await transport.fire(envelope(1), "digest", now + timedelta(seconds=1))
