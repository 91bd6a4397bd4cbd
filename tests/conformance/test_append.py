"""What is appended is stored or scheduled: in order, once, and never handed out early."""

import asyncio
import time

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Ack
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Status, unix_ms, uuid7
from tests.samples import STREAM, consumer, envelope, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

HOUR_MS = 3_600_000


async def test_events_come_out_in_the_order_in_which_they_went_in(transport: Broker) -> None:
    assert await transport.append(outgoing(*range(50))) == [Status.STORED] * 50
    assert await transport.append(outgoing(50)) == [Status.STORED]
    assert numbers(await receive(transport, consumer(), 51)) == list(range(51))


async def test_what_arrives_is_what_was_sent(transport: Broker) -> None:
    whole = envelope(
        subject="order-1\n\x00",
        organization="örg",
        correlation_id=uuid7(),
        causation_id=uuid7(),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        source="shop",
        priority=1,
        metadata={"user": "u1"},
        only="billing",
    )
    await transport.append([Outgoing(whole)])
    [delivery] = await receive(transport, consumer())
    assert decode(delivery.fields) == whole
    assert (delivery.attempt, delivery.failures, delivery.crashes) == (1, 0, 0)


async def test_one_call_may_go_to_several_streams(transport: Broker) -> None:
    await transport.append(outgoing(1, 2, stream="order") + outgoing(3, stream="invoice") + outgoing(4))
    assert numbers(await receive(transport, consumer(stream="order"), 3)) == [1, 2, 4]
    assert numbers(await receive(transport, consumer(stream="invoice"), 1)) == [3]


async def test_appending_again_stores_nothing_twice(transport: Broker) -> None:
    items = outgoing(1, 2, 3)
    await transport.append(items)
    assert await transport.append(items, again=True) == [Status.DUPLICATE] * 3
    await settle(transport, await receive(transport, consumer(), 3), Ack())
    assert await transport.append(items[:1], again=True) == [Status.DUPLICATE], "an event that is done is still known"
    assert await nothing_left(transport, consumer())


async def test_appending_again_stores_what_is_missing(transport: Broker) -> None:
    stored, missing = outgoing(1, 3), outgoing(2, 4) + outgoing(5, stream="invoice")
    await transport.append(stored)
    both = [stored[0], missing[0], stored[1], missing[1], missing[2]]
    fates = await transport.append(both, again=True)
    assert fates == [Status.DUPLICATE, Status.STORED, Status.DUPLICATE, Status.STORED, Status.STORED]
    assert numbers(await receive(transport, consumer(), 4)) == [1, 3, 2, 4]
    assert numbers(await receive(transport, consumer(stream="invoice"))) == [5]


async def test_appending_many_again_stores_each_once(transport: Broker) -> None:
    items = outgoing(*range(250))
    await transport.append(items[:120])
    fates = await transport.append(items, again=True)
    assert fates == [Status.DUPLICATE] * 120 + [Status.STORED] * 130
    assert numbers(await receive(transport, consumer(), 250)) == list(range(250))


async def test_a_repeat_is_known_though_the_publishers_clock_is_wrong(transport: Broker) -> None:
    """Event ids carry the publisher's time; the look for a repeat must not trust it."""
    for skew in (-HOUR_MS, HOUR_MS):
        wrong = Outgoing(envelope(id=uuid7_at(unix_ms(uuid7()) + skew)))
        await transport.append([wrong])
        assert await transport.append([wrong], again=True) == [Status.DUPLICATE]


@pytest.mark.parametrize("made_at", [30_000, 4_102_444_800_000 - 1], ids=["1970", "2099"])
async def test_a_repeat_is_known_though_its_id_is_of_no_real_time(transport: Broker, made_at: int) -> None:
    """A machine without a clock's battery begins in 1970; the look for a repeat must not reach behind time itself."""
    wrong, missing = (Outgoing(envelope(id=uuid7_at(made_at))) for _ in range(2))
    await transport.append([wrong])
    again = [wrong, missing, *outgoing(1)]
    assert await transport.append(again, again=True) == [Status.DUPLICATE, Status.STORED, Status.STORED]


async def test_scheduling_again_schedules_once(transport: Broker) -> None:
    items = outgoing(1, 2, delay=60.0)
    assert await transport.append(items[:1]) == [Status.SCHEDULED]
    assert await transport.append(items, again=True) == [Status.DUPLICATE, Status.SCHEDULED]


async def test_what_was_scheduled_and_promoted_is_not_scheduled_again(transport: Broker) -> None:
    items = outgoing(1, delay=0.05)
    await transport.append(items)
    await promoted(transport)
    assert await transport.append(items, again=True) == [Status.DUPLICATE]
    await settle(transport, await receive(transport, consumer()), Ack())
    await asyncio.sleep(0.06)
    assert await nothing_left(transport, consumer())


async def test_nothing_scheduled_is_early_and_reclaim_promotes_it(transport: Broker) -> None:
    started = time.monotonic()
    await transport.append(outgoing(1, delay=1.3))  # longer than what its publisher may promote itself
    assert await transport.read(consumer(), 10, 0.01) == []
    waiting = await transport.reclaim(consumer(), 10)
    assert waiting.next_due is not None
    assert 0 < waiting.next_due <= 1.3

    async def arrived() -> bool:
        await transport.reclaim(consumer(), 10)
        return bool(await transport.read(consumer(), 10, 0.01))

    await eventually(arrived)
    assert time.monotonic() - started >= 1.299  # the servers count milliseconds


async def test_what_is_due_before_the_next_look_at_the_schedule_is_not_late(transport: Broker) -> None:
    """Nobody reclaims here, as no worker does for a second if it knows of nothing: it would never come."""
    await transport.read(consumer(), 1, 0.01)
    for delay in (0.01, 0.3):
        with Stopwatch() as watch:
            await transport.append(outgoing(1, delay=delay))
            await receive(transport, consumer())
        assert delay - 0.001 <= watch.passed


async def test_what_is_due_first_comes_first(transport: Broker) -> None:
    await transport.append(outgoing(1, delay=0.1) + outgoing(2, delay=0.05) + outgoing(3))
    await asyncio.sleep(0.11)
    await promoted(transport)
    assert numbers(await receive(transport, consumer(), 3)) == [3, 2, 1]


async def promoted(transport: Broker) -> None:
    async def none_waits() -> bool:
        return (await transport.reclaim(consumer(group="looking-on", stream=STREAM), 1)).next_due is None

    await reclaim(transport, consumer(group="looking-on"), 0)
    await eventually(none_waits)


def uuid7_at(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}{uuid7()[13:]}"
