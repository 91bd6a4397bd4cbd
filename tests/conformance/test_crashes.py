"""Deaths of workers are counted apart from failures, and whoever is suspected of them runs alone."""

from eventbus.transport import SUSPECT_FROM, Ack, Delivery, Retry, Snooze, Subscription, Transport
from tests.samples import FAILED, consumer, numbers, outgoing, receive, reclaim, settle
from tests.waiting import eventually

LEASE = 0.1


def worker(name: object, crash_budget: int = 3) -> Subscription:
    """Each has a name of its own: who died does not come back."""
    return consumer(str(name), lease=LEASE, crash_budget=crash_budget)


async def test_a_lost_lease_counts_as_a_crash_and_not_as_a_failure(transport: Transport) -> None:
    """asynq#1015: the death of a worker used up the user's retries."""
    await transport.append(outgoing(1))
    await receive(transport, worker("first"))
    [delivery] = await reclaim(transport, worker("second"))
    assert (delivery.crashes, delivery.failures, delivery.attempt) == (1, 0, 1)


async def test_what_may_have_killed_its_consumers_is_handed_out_only_when_asked_for(transport: Transport) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 1)
    assert await suspected(transport, worker("third")) == []
    [alone] = await reclaim(transport, worker("third"), suspect=True)
    assert alone.crashes == 2


async def test_what_used_up_its_budget_is_handed_out_to_be_buried(transport: Transport) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 4)
    [delivery] = await reclaim(transport, worker("undertaker"))
    assert delivery.crashes == worker("undertaker").condemned_from == 5
    await settle(transport, [delivery], Ack())


async def test_the_budget_is_spent_alone(transport: Transport) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 5, crash_budget=5)
    await suspected(transport, worker("next", 5))
    [delivery] = await reclaim(transport, worker("next", 5), suspect=True)
    assert delivery.crashes == 6


async def test_one_suspect_at_a_time_and_nothing_else_with_it(transport: Transport) -> None:
    await transport.append(outgoing(1, 2))
    await crash(transport, 1, count=2)
    await transport.append(outgoing(3))
    await receive(transport, worker("other"))
    assert numbers(await reclaim(transport, worker("third"), suspect=True)) == [1]
    assert numbers(await suspected(transport, worker("third"), innocent=1)) == [3]


async def test_suspects_hide_nothing_behind_them(transport: Transport) -> None:
    await transport.append(outgoing(*range(5)))
    await crash(transport, 1, count=5)
    await transport.append(outgoing(5, 6))
    await receive(transport, worker(1), 2)  # by the one that holds the suspects and dies with them
    assert sorted(numbers(await reclaim(transport, worker("third"), 2))) == [5, 6]


async def test_a_suspect_that_fails_without_killing_is_cleared(transport: Transport) -> None:
    await transport.append(outgoing(1))
    [suspect] = await crash(transport, 1)
    await settle(transport, [suspect], Retry(0.0, FAILED))
    [delivery] = await reclaim(transport, worker("third"))
    assert (delivery.crashes, delivery.failures) == (0, 1)


async def test_a_suspect_that_was_put_off_is_a_suspect_still(transport: Transport) -> None:
    await transport.append(outgoing(1))
    [delivery] = await crash(transport, 1)
    await settle(transport, [delivery], Snooze(0.0))
    [delivery] = await reclaim(transport, worker("third"))
    assert delivery.crashes == 1, "a snooze is no crash either"
    [delivery] = await reclaim(transport, worker("fourth"), suspect=True)
    await settle(transport, [delivery], Snooze(0.0))
    assert await suspected(transport, worker("fifth")) == []


async def test_no_suspect_is_reported_once_it_is_done(transport: Transport) -> None:
    await transport.append(outgoing(1))
    await crash(transport, 1)
    await settle(transport, await reclaim(transport, worker("third"), suspect=True), Ack())
    assert not (await transport.reclaim(worker("fourth"), 10)).suspects


async def suspected(transport: Transport, subscription: Subscription, innocent: int = 0) -> list[Delivery]:
    """Reclaim until there are suspects, and so many others, which are returned."""
    found: list[Delivery] = []

    async def told() -> bool:
        reclaimed = await transport.reclaim(subscription, 10)
        found.extend(reclaimed.deliveries)
        return reclaimed.suspects and len(found) >= innocent

    await eventually(told)
    return found


async def crash(transport: Transport, times: int, *, count: int = 1, crash_budget: int = 3) -> list[Delivery]:
    """Workers that take `count` events and die, until each has `times` crashes; what the last one held."""
    deliveries = await receive(transport, worker(0, crash_budget), count)
    for number in range(1, times + 1):
        alone = number >= SUSPECT_FROM
        deliveries = await reclaim(transport, worker(number, crash_budget), count, suspect=alone)
        assert [delivery.crashes for delivery in deliveries] == [number] * count
    return deliveries
