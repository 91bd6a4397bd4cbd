"""Ten priorities: the urgent first, the last not starved, and each transition as in the normal lane."""

import asyncio

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Ack, Dead, Failure, Release, Retry, Snooze, Subscription
from eventbus.contract.outgoing import Outgoing
from tests.samples import STREAM, consumer, envelope, nothing_left, numbers, receive, reclaim, settle
from tests.waiting import PATIENCE

ANN = consumer("ann")
FAILED = Failure("ValueError: no")


def urgent(number: int, priority: int, delay: float = 0.0) -> Outgoing:
    return Outgoing(envelope(number)._replace(priority=priority), delay)


async def test_the_urgent_are_taken_first(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    await transport.append([urgent(number, priority=10) for number in range(500)] + [urgent(1000, priority=1)])
    turns = [numbers(await transport.read(ANN, 10, 0.5)) for _ in range(3)]
    assert any(1000 in turn for turn in turns)


async def test_what_a_lane_does_not_use_goes_to_the_most_urgent(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    await transport.append([urgent(number, priority=10) for number in range(100)])
    await transport.append([urgent(1000 + number, priority=2) for number in range(100)])
    taken = numbers(await transport.read(ANN, 50, 0.5))
    assert sum(number >= 1000 for number in taken) >= 40


async def test_the_last_are_not_starved(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    await transport.append([urgent(number, priority=10) for number in range(10)])
    arrived: list[int] = []
    for _ in range(300):
        await transport.append([urgent(1000, priority=1)])
        arrived += numbers(await transport.read(ANN, 1, 0.5))
        if 0 in arrived:
            return
    pytest.fail("300 turns, and the last was never next")


@pytest.mark.parametrize("priority", range(1, 11))
async def test_every_priority_arrives_at_once_and_later(transport: Broker, priority: int) -> None:
    await transport.read(ANN, 1, 0.01)
    await transport.append([urgent(1, priority), urgent(2, priority, delay=0.02)])
    [first] = await receive(transport, ANN)
    await asyncio.sleep(0.03)
    await transport.reclaim(ANN, 10)
    [second] = await receive(transport, ANN)
    assert [decode(delivery.fields).priority for delivery in (first, second)] == [priority] * 2
    assert await transport.renew([first, second]) == []
    await settle(transport, [first, second], Ack())
    assert await nothing_left(transport, ANN)


async def test_a_waiting_read_hears_every_priority(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    for priority in range(1, 11):
        reading = asyncio.create_task(transport.read(ANN, 5, 5.0))
        await asyncio.sleep(0.01)
        await transport.append([urgent(priority, priority)])
        assert numbers(await reading) == [priority]


@pytest.mark.parametrize("outcome", [Retry(0.0, FAILED), Snooze(0.0), Release()], ids=lambda o: type(o).__name__)
async def test_what_is_put_off_comes_back_from_its_lane(transport: Broker, outcome: Retry | Snooze | Release) -> None:
    await transport.append([urgent(number, priority) for number, priority in ((9, 9), (2, 2), (5, 5))])
    await settle(transport, await receive(transport, ANN, 3), outcome)
    again = await reclaim(transport, ANN, 3)
    assert sorted(numbers(again)) == [2, 5, 9]
    assert {delivery.failures for delivery in again} == {int(isinstance(outcome, Retry))}
    await settle(transport, again, Ack())
    assert await nothing_left(transport, ANN)


async def test_entries_of_two_lanes_are_two_though_their_ids_may_be_one(transport: Broker) -> None:
    """Redis counts ids within a stream: at the same millisecond two lanes have the same."""
    await transport.append([urgent(1, 1), urgent(2, 10)])
    deliveries = await receive(transport, ANN, 2)
    assert len({delivery.entry_id for delivery in deliveries}) == 2
    await settle(transport, [d for d in deliveries if numbers([d]) == [1]], Retry(60.0, FAILED))
    await settle(transport, [d for d in deliveries if numbers([d]) == [2]], Ack())
    assert (await transport.reclaim(ANN, 10)).next_due is not None, "the ack of one did not end the other"


async def test_a_dead_worker_s_urgent_events_are_taken_over(transport: Broker) -> None:
    await transport.append([urgent(number, priority) for number, priority in ((9, 9), (1, 1))])
    await receive(transport, consumer("died", lease=0.1), 2)
    heir = consumer("heir", lease=0.1)
    assert sorted(numbers(await reclaim(transport, heir, 2))) == [1, 9]


async def test_a_dead_letter_is_replayed_into_its_lane(transport: Broker) -> None:
    await transport.append([urgent(1, 1)])
    await settle(transport, await receive(transport, ANN), Dead(FAILED, 1))
    [letter] = await transport.dead_letters(STREAM)
    await transport.append([urgent(number, 5) for number in range(100, 150)])
    assert await transport.replay(letter)
    [again] = [d for d in await receive(transport, ANN, 20) if numbers([d]) == [1]]
    assert decode(again.fields).priority == 1
    await settle(transport, [again], Ack())


async def test_appending_again_finds_it_in_its_lane(transport: Broker) -> None:
    sent = [urgent(number, number) for number in range(1, 11)]
    await transport.append(sent)
    await transport.append(sent, again=True)
    assert len(await receive(transport, ANN, 10)) == 10
    assert await transport.read(ANN, 100, 0.05) == []


async def test_a_read_takes_no_more_than_its_credit(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    await transport.append([urgent(number, 1 + number % 10) for number in range(300)])
    for credit in (1, 7, 40):
        assert len(await transport.read(ANN, credit, 0.5)) == credit


async def test_a_waiting_read_can_be_interrupted(transport: Broker) -> None:
    await transport.read(ANN, 1, 0.01)
    reading = asyncio.create_task(transport.read(ANN, 5, 30.0))
    await asyncio.sleep(0.05)
    others: list[Subscription] = [consumer("never reads")]
    await transport.interrupt(others)
    await transport.interrupt([ANN])
    async with asyncio.timeout(PATIENCE):
        assert await reading == []
