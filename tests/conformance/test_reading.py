"""Reading: each event once for each group, never more than the credit, never longer than the wait."""

import asyncio

from eventbus.contract.broker import Broker
from tests.samples import consumer, numbers, outgoing, receive
from tests.waiting import PATIENCE, eventually


async def test_each_event_reaches_each_group_once(transport: Broker) -> None:
    await transport.append(outgoing(*range(10)))
    ann, bob = consumer("ann"), consumer("bob")
    shared = await receive(transport, ann, 4) + await receive(transport, bob, 6)
    assert numbers(shared) == list(range(10))
    assert numbers(await receive(transport, consumer("ann", group="shipping"), 10)) == list(range(10))
    for subscription in (ann, bob, consumer("ann", group="shipping")):
        assert await transport.read(subscription, 10, 0.01) == []


async def test_a_group_begins_at_the_beginning_of_the_stream(transport: Broker) -> None:
    """faststream#2694: a group made at `$` skips the backlog."""
    await receive(transport, consumer(), 0)
    await transport.append(outgoing(1, 2))
    assert numbers(await receive(transport, consumer(group="late"), 2)) == [1, 2]


async def test_a_group_may_read_before_the_stream_exists(transport: Broker) -> None:
    assert await transport.read(consumer(), 10, 0.01) == []
    assert (await transport.reclaim(consumer(group="other"), 10)).deliveries == []
    await transport.append(outgoing(1))
    assert numbers(await receive(transport, consumer())) == [1]
    assert numbers(await receive(transport, consumer(group="other"))) == [1]


async def test_a_read_takes_no_more_than_its_credit(transport: Broker) -> None:
    await transport.append(outgoing(*range(5)))
    await eventually(lambda: transport.read(consumer(), 2, 0.1))
    assert numbers(await transport.read(consumer(), 2, 0.1)) == [2, 3]
    assert await transport.read(consumer(), 0, 0.01) == []
    assert numbers(await transport.read(consumer(), 2, 0.1)) == [4]


async def test_a_read_waits_no_longer_than_it_may(transport: Broker) -> None:
    await receive(transport, consumer(), 0)
    await transport.read(consumer(), 1, 0.01)  # the group is there
    for wait in (0.2, 0.0001, 0.0):
        async with asyncio.timeout(wait + 1):
            assert await transport.read(consumer(), 1, wait) == []


async def test_a_read_ends_when_an_event_comes(transport: Broker) -> None:
    await transport.read(consumer(), 1, 0.01)
    async with asyncio.timeout(PATIENCE):
        reading = asyncio.create_task(receive(transport, consumer()))
        await asyncio.sleep(0.05)
        await transport.append(outgoing(7))
        assert numbers(await reading) == [7]
