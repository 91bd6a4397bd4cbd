"""Deaths of workers are counted apart from failures, and whoever is suspected of them runs alone."""

import asyncio

from eventbus import Batch, Event, EventBus, Group
from eventbus.consuming.consumer import Consumer
from eventbus.consuming.executor import Executor
from eventbus.consuming.suspects import Isolation
from eventbus.contract.broker import Broker
from eventbus.contract.delivery import SUSPECT_FROM, Ack, Delivery, Retry, Snooze, Subscription
from tests.samples import FAILED, consumer, numbers, outgoing, receive, reclaim, settle
from tests.waiting import PATIENCE, eventually, until

LEASE = 0.1


class Told(Event, type="crashes.told"):
    number: int


def worker(name: object, crash_budget: int = 3) -> Subscription:
    """Each has a name of its own: who died does not come back."""
    return consumer(str(name), lease=LEASE, crash_budget=crash_budget)


async def test_a_lost_lease_counts_as_a_crash_and_not_as_a_failure(transport: Broker) -> None:
    """asynq#1015: the death of a worker used up the user's retries."""
    await transport.append(outgoing(1))
    await receive(transport, worker("first"))
    [delivery] = await reclaim(transport, worker("second"))
    assert (delivery.crashes, delivery.failures, delivery.attempt) == (1, 0, 1)


async def test_what_may_have_killed_its_consumers_is_handed_out_only_when_asked_for(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 1)
    assert await suspected(transport, worker("third")) == []
    [alone] = await reclaim(transport, worker("third"), suspect=True)
    assert alone.crashes == 2


async def test_what_used_up_its_budget_is_handed_out_to_be_buried(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 4)
    [delivery] = await reclaim(transport, worker("undertaker"))
    assert delivery.crashes == worker("undertaker").condemned_from == 5
    await settle(transport, [delivery], Ack())


async def test_the_budget_is_spent_alone(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 5, crash_budget=5)
    await suspected(transport, worker("next", 5))
    [delivery] = await reclaim(transport, worker("next", 5), suspect=True)
    assert delivery.crashes == 6


async def test_one_suspect_at_a_time_and_nothing_else_with_it(transport: Broker) -> None:
    await transport.append(outgoing(1, 2))
    await crash(transport, 1, count=2)
    await transport.append(outgoing(3))
    await receive(transport, worker("other"))
    assert numbers(await reclaim(transport, worker("third"), suspect=True)) == [1]
    assert numbers(await suspected(transport, worker("third"), innocent=1)) == [3]


async def test_suspects_hide_nothing_behind_them(transport: Broker) -> None:
    await transport.append(outgoing(*range(5)))
    await crash(transport, 1, count=5)
    await transport.append(outgoing(5, 6))
    await receive(transport, worker(1), 2)  # by the one that holds the suspects and dies with them
    assert sorted(numbers(await reclaim(transport, worker("third"), 2))) == [5, 6]


async def test_a_suspect_that_fails_without_killing_is_cleared(transport: Broker) -> None:
    await transport.append(outgoing(1))
    [suspect] = await crash(transport, 1)
    await settle(transport, [suspect], Retry(0.0, FAILED))
    [delivery] = await reclaim(transport, worker("third"))
    assert (delivery.crashes, delivery.failures) == (0, 1)


async def test_a_suspect_that_was_put_off_is_a_suspect_still(transport: Broker) -> None:
    await transport.append(outgoing(1))
    [delivery] = await crash(transport, 1)
    await settle(transport, [delivery], Snooze(0.0))
    [delivery] = await reclaim(transport, worker("third"))
    assert delivery.crashes == 1, "a snooze is no crash either"
    [delivery] = await reclaim(transport, worker("fourth"), suspect=True)
    await settle(transport, [delivery], Snooze(0.0))
    assert await suspected(transport, worker("fifth")) == []


async def test_no_suspect_is_reported_once_it_is_done(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 1)
    await settle(transport, await reclaim(transport, worker("third"), suspect=True), Ack())
    assert not (await transport.reclaim(worker("fourth"), 10)).suspects


async def test_of_many_suspects_the_guilty_one_is_found_in_halves(transport: Broker) -> None:
    """Run together they are not blamed; the innocent are done in halves, and the guilty one spends its budget alone."""
    names = range(24)
    guilty = 0  # in the first half of every half: it kills in company as often as it can
    await transport.append(outgoing(*names))
    await receive(transport, worker("first"), len(names))
    held = await reclaim(transport, worker("second"), len(names))
    done: list[int] = []
    blamed: list[int] = []
    rounds = deaths = 0
    me, buried = worker("life 0"), list[Delivery]()
    while not buried:
        me = worker(f"life {deaths}")
        held, buried = await _some(transport, me)
        rounds += 1
        if guilty in numbers(held):
            blamed.append(max(delivery.crashes for delivery in held))
            assert {delivery.crashes for delivery in held} == {blamed[-1]}
            deaths += 1
            continue
        done += numbers(held)
        await settle(transport, held, Ack())
    assert numbers(buried) == [guilty]
    assert buried[0].crashes == me.condemned_from
    await settle(transport, buried, Ack())
    while len(done) < len(names) - 1:  # what its halves have left
        held, _ = await _some(transport, me)
        rounds += 1
        done += numbers(held)
        await settle(transport, held, Ack())
    assert sorted(done) == [name for name in names if name != guilty]
    # In company its crashes are none of its own: two before it was a suspect, then three alone.
    assert (min(blamed), max(blamed)) == (2, me.condemned_from - 1)
    assert deaths <= 5 + 1 + me.condemned_from - SUSPECT_FROM  # the halves of 24, and the budget
    assert rounds < len(names)


async def _some(transport: Broker, subscription: Subscription) -> tuple[list[Delivery], list[Delivery]]:
    """Suspects to run alone, or what is to be buried."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await transport.reclaim(subscription, 100)
            if found.deliveries:
                return [], found.deliveries
            if found.suspects:
                suspects = (await transport.reclaim(subscription, 100, suspect=True)).deliveries
                if suspects:
                    return suspects, []
            await asyncio.sleep(0.005)


async def test_hundreds_of_suspects_of_a_batch_s_handler_are_run_in_few_batches(transport: Broker) -> None:
    """Two kills of a worker that had a full batch in its hands made one batch for each event of it."""
    count = 300
    group = Group("billing", lease=LEASE, concurrency=1)
    batches: list[int] = []
    handled: set[int] = set()

    @group.on_batch(Told, max_size=500, max_wait=0.05)
    async def gather(batch: Batch[Told]) -> None:
        assert all(item.ctx.suspect for item in batch)
        batches.append(len(batch))
        handled.update(event.number for event in batch.events)

    bus = EventBus("memory://")
    bus.transport = transport
    await bus.publish_many([Told(number=number) for number in range(count)])
    first, second = (consumer(name, stream="crashes", lease=LEASE) for name in ("first", "second"))
    await receive(transport, first, count)
    await reclaim(transport, second, count)
    third = Consumer(transport, group, Executor(group, bus), "third", Isolation())
    running = asyncio.create_task(third.run(lambda: 0.0))
    await until(lambda: len(handled) == count)
    third.stop()
    await running
    assert len(batches) <= 12, batches


async def suspected(transport: Broker, subscription: Subscription, innocent: int = 0) -> list[Delivery]:
    """Reclaim until there are suspects, and so many others, which are returned."""
    found: list[Delivery] = []

    async def told() -> bool:
        reclaimed = await transport.reclaim(subscription, 10)
        found.extend(reclaimed.deliveries)
        return reclaimed.suspects and len(found) >= innocent

    await eventually(told)
    return found


async def crash(transport: Broker, times: int, *, count: int = 1, crash_budget: int = 3) -> list[Delivery]:
    """Workers that take `count` events and die, until each has `times` crashes; what the last one held."""
    deliveries = await receive(transport, worker(0, crash_budget), count)
    for number in range(1, times + 1):
        alone = number >= SUSPECT_FROM
        deliveries = await reclaim(transport, worker(number, crash_budget), count, suspect=alone)
        assert [delivery.crashes for delivery in deliveries] == [number] * count
    return deliveries
