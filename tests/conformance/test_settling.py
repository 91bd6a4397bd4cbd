"""Each outcome ends a delivery in its own way."""

import asyncio
import time

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Dead, Outcome, Release, Retry, Settlement, Snooze
from eventbus.contract.limiting import Bound, Request, Scope
from eventbus.contract.limits import RateLimit
from tests.samples import FAILED, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle
from tests.waiting import PATIENCE, eventually

ANN, BOB = consumer("ann"), consumer("bob")


async def test_what_is_acked_does_not_come_back(transport: Broker) -> None:
    short = consumer(lease=0.1)
    await transport.append(outgoing(1, 2))
    await settle(transport, await receive(transport, short, 2), Ack())
    await asyncio.sleep(0.11)
    assert await nothing_left(transport, consumer("bob", lease=0.1))


async def test_a_retry_comes_back_when_it_is_due_and_not_before(transport: Broker) -> None:
    await transport.append(outgoing(1))
    deliveries = await receive(transport, ANN)
    started = time.monotonic()
    await settle(transport, deliveries, Retry(0.2, FAILED))
    waiting = await transport.reclaim(BOB, 10)
    assert waiting.deliveries == []
    assert waiting.next_due is not None
    assert 0 < waiting.next_due <= 0.2
    await reclaim(transport, BOB)
    assert time.monotonic() - started >= 0.199  # due times are kept in milliseconds


async def test_a_due_retry_does_not_wait_for_the_lease(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Retry(0.01, FAILED))
    async with asyncio.timeout(ANN.lease / 3):
        await reclaim(transport, ANN)


async def test_retries_count_failures(transport: Broker) -> None:
    await transport.append(outgoing(1))
    deliveries = await receive(transport, ANN)
    for failures in (1, 2, 3):
        await settle(transport, deliveries, Retry(0.0, FAILED))
        deliveries = await reclaim(transport, BOB if failures % 2 else ANN)
        assert (deliveries[0].failures, deliveries[0].attempt) == (failures, failures + 1)


async def test_a_snooze_spends_no_attempt(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Retry(0.0, FAILED))
    for _ in range(3):
        snoozed = await reclaim(transport, ANN)
        await settle(transport, snoozed, Snooze(0.05))
        assert (await transport.reclaim(ANN, 10)).deliveries == []
    [delivery] = await reclaim(transport, ANN)
    assert delivery.failures == 1


async def test_what_is_released_is_anybodys_at_once_and_spends_no_attempt(transport: Broker) -> None:
    await transport.append(outgoing(1, 2))
    await settle(transport, await receive(transport, ANN, 2), Release())
    found = (await transport.reclaim(BOB, 10)).deliveries
    assert numbers(found) == [1, 2]
    assert [(delivery.failures, delivery.crashes) for delivery in found] == [(0, 0), (0, 0)]


async def test_what_rests_belongs_to_nobody(transport: Broker) -> None:
    await transport.append(outgoing(1))
    resting = await receive(transport, ANN)
    await settle(transport, resting, Snooze(60.0))
    assert await transport.renew(resting) == resting
    await settle(transport, resting, Dead(FAILED, 1))
    assert await transport.dead_letters("order") == []


async def test_retries_come_in_the_order_in_which_they_are_due(transport: Broker) -> None:
    await transport.append(outgoing(1, 2, 3))
    one, two, three = await receive(transport, ANN, 3)
    delays = ((one, 0.15), (two, 0.05), (three, 0.1))
    await transport.settle([Settlement(delivery, Retry(delay, FAILED)) for delivery, delay in delays])
    await asyncio.sleep(0.16)
    assert numbers(await reclaim(transport, ANN, 3)) == [2, 3, 1]


async def test_a_retry_holds_up_no_other_event(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await settle(transport, await receive(transport, ANN), Retry(60.0, FAILED))
    await transport.append(outgoing(2))
    assert numbers(await receive(transport, ANN)) == [2]


async def test_one_call_settles_all_kinds(transport: Broker) -> None:
    await transport.append(outgoing(*range(6)))
    deliveries = await receive(transport, ANN, 6)
    outcomes: list[Outcome] = [Ack(), Retry(0.0, FAILED), Snooze(0.0), Release(), Dead(FAILED, 1), Ack()]
    await transport.settle([Settlement(*pair) for pair in zip(deliveries, outcomes, strict=True)])
    again = await reclaim(transport, BOB, 3)
    assert sorted(zip(numbers(again), [delivery.failures for delivery in again], strict=True)) == [
        (1, 1),
        (2, 0),
        (3, 0),
    ]
    assert [dead.envelope and dead.envelope.data for dead in await transport.dead_letters("order")] == [b"4"]
    await settle(transport, again, Ack())
    assert await nothing_left(transport, BOB)


async def test_one_call_settles_several_streams_and_groups(transport: Broker) -> None:
    subscriptions = [consumer(), consumer(group="shipping"), consumer(stream="invoice")]
    await transport.append(outgoing(1) + outgoing(2, stream="invoice"))
    deliveries = [delivery for subscription in subscriptions for delivery in await receive(transport, subscription)]
    await settle(transport, deliveries, Ack())
    for subscription in subscriptions:
        assert await nothing_left(transport, subscription)


async def test_settling_twice_is_harmless(transport: Broker) -> None:
    await transport.append(outgoing(*range(5)))
    deliveries = await receive(transport, ANN, 5)
    outcomes: list[Outcome] = [Ack(), Retry(0.0, FAILED), Snooze(0.0), Release(), Dead(FAILED, 1)]
    settlements = [Settlement(*pair) for pair in zip(deliveries, outcomes, strict=True)]
    await transport.settle(settlements)
    await transport.settle(settlements)
    assert len(await transport.dead_letters("order")) == 1
    again = await reclaim(transport, BOB, 3)
    assert {number: d.failures for number, d in zip(numbers(again), again, strict=True)} == {1: 1, 2: 0, 3: 0}
    await transport.settle(settlements)
    assert await transport.renew(again) == [], "a late repeat takes nothing from the next owner"
    await settle(transport, again, Ack())
    assert await nothing_left(transport, ANN)


async def test_settling_nothing_is_allowed(transport: Broker) -> None:
    await transport.settle([])
    assert await transport.renew([]) == []
    assert await transport.append([]) == []


async def test_next_due_is_the_nearest_of_schedule_and_retries(transport: Broker) -> None:
    await transport.append(outgoing(1) + outgoing(2, delay=5.0))
    await settle(transport, await receive(transport, ANN), Retry(60.0, FAILED))

    async def next_due() -> float | None:
        return (await transport.reclaim(BOB, 1)).next_due

    assert 4 < (await eventually(next_due) or 0) <= 5


async def test_what_waits_for_a_limit_comes_when_it_was_told_to_however_late_that_is_settled(
    transport: Broker,
) -> None:
    await transport.append(outgoing(*range(7)))
    deliveries = await receive(transport, ANN, 7)
    scope, limit = Scope("billing", 0, "o"), RateLimit(1, per=0.1, by="organization")
    requests = [Request(delivery.entry_id, [Bound(scope, limit)], 10.0) for delivery in deliveries]
    answers = await transport.admit(requests, 10)
    told = [answer.at for answer in answers[1:]]
    assert told == sorted(set(told), key=lambda at: at or 0), "each has a time of its own"
    await asyncio.sleep(0.15)
    await transport.renew(deliveries)
    resting = [
        Settlement(delivery, Snooze(answer.wait, answer.at))
        for delivery, answer in zip(deliveries[1:], answers[1:], strict=True)
    ]
    assert not await transport.settle(resting[::-1])
    found = numbers((await transport.reclaim(BOB, 10)).deliveries)
    assert found[:1] == [1], "its time has come meanwhile"
    async with asyncio.timeout(PATIENCE):
        while len(found) < 6:
            found += numbers((await transport.reclaim(BOB, 10)).deliveries)
            await asyncio.sleep(0.01)
    assert found == [1, 2, 3, 4, 5, 6]
    assert not await transport.settle(resting), "it is bob's now: nothing changes"
    assert (await transport.reclaim(ANN, 10)).deliveries == []
