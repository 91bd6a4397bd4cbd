"""A delivery belongs to its consumer for as long as it is renewed, and to whoever reclaims it afterwards."""

import asyncio
import time

import pytest

from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Dead, Outcome, Release, Retry, Snooze
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.samples import FAILED, consumer, nothing_left, numbers, outgoing, receive, reclaim, settle

LEASE = 0.3
ANN, BOB = consumer("ann", lease=LEASE), consumer("bob", lease=LEASE)


async def test_a_delivery_is_not_reclaimed_before_its_lease_has_run_out(transport: Broker) -> None:
    await transport.append(outgoing(1))
    earliest = time.monotonic() + LEASE
    await receive(transport, ANN)
    assert (await transport.reclaim(BOB, 10)).deliveries == []
    [delivery] = await reclaim(transport, BOB)
    assert time.monotonic() >= earliest - 0.002  # the servers count milliseconds
    assert numbers([delivery]) == [1]


async def test_what_was_reclaimed_has_a_lease_of_its_own(transport: Broker) -> None:
    await transport.append(outgoing(1))
    await receive(transport, ANN)
    await reclaim(transport, BOB)
    assert (await transport.reclaim(consumer("cid", lease=LEASE), 10)).deliveries == []


async def test_a_reclaim_takes_no_more_than_its_credit(transport: Broker) -> None:
    await transport.append(outgoing(*range(5)))
    await receive(transport, ANN, 5)
    assert numbers(await reclaim(transport, BOB, 2)) == [0, 1]
    assert (await transport.reclaim(BOB, 0)).deliveries == []
    assert numbers(await reclaim(transport, BOB, 3)) == [2, 3, 4]


async def test_a_renewed_lease_is_kept(transport: Broker) -> None:
    await transport.append(outgoing(1))
    deliveries = await receive(transport, ANN)
    for _ in range(6):
        assert await transport.renew(deliveries) == []
        await asyncio.sleep(LEASE / 3)
    assert (await transport.reclaim(BOB, 10)).deliveries == []


async def test_renewing_tells_which_leases_are_lost_and_takes_nothing_back(transport: Broker) -> None:
    await transport.append(outgoing(1, 2, 3))
    one, two, three = await receive(transport, ANN, 3)
    await asyncio.sleep(LEASE * 1.1)
    await transport.renew([three])
    taken = await reclaim(transport, BOB, 2)
    assert await transport.renew([one, two, three]) == [one, two]
    assert await transport.renew(taken) == []


async def test_what_is_settled_is_no_longer_leased(transport: Broker) -> None:
    await transport.append(outgoing(1))
    deliveries = await receive(transport, ANN)
    await settle(transport, deliveries, Ack())
    assert await transport.renew(deliveries) == deliveries


async def test_a_consumer_does_not_reclaim_what_it_holds_itself(transport: Broker) -> None:
    """It may be late with renewing, because a handler blocked its loop: running the event twice would not help."""
    await transport.append(outgoing(1))
    deliveries = await receive(transport, ANN)
    await asyncio.sleep(LEASE * 1.2)
    assert (await transport.reclaim(ANN, 10)).deliveries == []
    assert await transport.renew(deliveries) == []
    await settle(transport, deliveries, Ack())
    assert await nothing_left(transport, ANN)


async def test_the_ack_of_a_consumer_that_lost_its_lease_counts(transport: Broker) -> None:
    await transport.append(outgoing(1))
    zombie = await receive(transport, ANN)
    owned = await reclaim(transport, BOB)
    await settle(transport, zombie, Ack())
    assert await transport.renew(owned) == owned, "the work is done, there is nothing left to own"
    await settle(transport, owned, Retry(0.0, FAILED))
    assert await nothing_left(transport, consumer("cid", lease=0.1))


@pytest.mark.parametrize(
    "outcome", [Retry(0.0, FAILED), Snooze(0.0), Release(), Dead(FAILED, 1)], ids=lambda outcome: type(outcome).__name__
)
async def test_any_other_outcome_of_a_consumer_that_lost_its_lease_changes_nothing(
    transport: Broker, outcome: Outcome
) -> None:
    await transport.append(outgoing(1))
    zombie = await receive(transport, ANN)
    owned = await reclaim(transport, BOB)
    await settle(transport, zombie, outcome)
    assert (await transport.reclaim(consumer("cid", lease=LEASE), 10)).deliveries == []
    assert await transport.dead_letters("order") == []
    assert await transport.renew(owned) == [], "it is still bob's"
    assert owned[0].failures == 0


async def test_a_failure_of_who_had_lost_its_lease_is_added_to_those_since_then(
    transport: Broker,
) -> None:
    await transport.append(outgoing(1))
    zombie = await receive(transport, ANN)
    for _ in range(3):
        await settle(transport, await reclaim(transport, BOB), Retry(0.0, FAILED))
    await transport.reclaim(ANN, 10)  # it is ann's again, whose first attempt goes on
    await settle(transport, zombie, Retry(0.0, FAILED))
    [delivery] = await reclaim(transport, BOB)
    assert (delivery.failures, delivery.attempt) == (4, 5)


async def test_the_late_ack_of_a_consumer_that_had_lost_its_lease_leaves_no_record(
    redis_transport: RedisTransport, raw: Links
) -> None:
    await redis_transport.append(outgoing(1, 2))
    zombies = await receive(redis_transport, ANN, 2)
    crashed = await reclaim(redis_transport, BOB, 2)
    await settle(redis_transport, crashed[:1], Retry(60.0, FAILED))
    assert await raw.execute("KEYS", "*:billing:*")
    await settle(redis_transport, zombies, Ack())
    assert await raw.execute("KEYS", "*:billing:*") == []


async def test_who_has_lost_a_lease_leaves_the_event_to_others_until_its_handler_has_ended(
    redis_transport: RedisTransport,
) -> None:
    """Else it would take the next attempt over, and hand it to nobody: it has the event in hand already."""
    await redis_transport.append(outgoing(1))
    zombie = await receive(redis_transport, ANN)
    await settle(redis_transport, await reclaim(redis_transport, BOB), Retry(0.0, FAILED))
    assert await redis_transport.renew(zombie) == zombie
    for _ in range(3):
        assert (await redis_transport.reclaim(ANN, 10)).deliveries == []
    again = await reclaim(redis_transport, BOB)
    assert (again[0].failures, again[0].crashes) == (1, 0)
    await settle(redis_transport, again, Retry(0.0, FAILED))
    await settle(redis_transport, zombie, Retry(0.0, FAILED))
    assert (await reclaim(redis_transport, ANN))[0].failures == 2, "and then it takes it like anybody else"
