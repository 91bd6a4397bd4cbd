"""What the memory transport adds to the contract: a clock of one's own, and nothing that waits on it in vain."""

import asyncio

from eventbus.contract.delivery import Delivery, Retry
from eventbus.memory import MemoryTransport
from tests.samples import FAILED, consumer, numbers, outgoing, receive, reclaim, settle
from tests.waiting import PATIENCE


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_time_passes_as_its_clock_says() -> None:
    clock = Clock()
    transport = MemoryTransport(clock)
    await transport.append(outgoing(1) + outgoing(2, delay=3600.0))
    await settle(transport, await receive(transport, consumer("ann", lease=10.0)), Retry(600.0, FAILED))
    assert (await transport.reclaim(consumer("bob"), 10)).next_due == 600.0
    clock.now += 600.0
    [delivery] = await reclaim(transport, consumer("ann", lease=10.0))
    clock.now += 10.0
    [delivery] = await reclaim(transport, consumer("bob", lease=10.0))
    assert (numbers([delivery]), delivery.failures, delivery.crashes) == ([1], 1, 1)
    clock.now += 3600.0
    await transport.reclaim(consumer("bob"), 0)
    assert numbers(await receive(transport, consumer("bob"))) == [2]


async def test_who_waits_for_news_does_not_wait_beyond_what_comes_due() -> None:
    transport = MemoryTransport()

    async def read() -> list[Delivery]:
        while not (found := await transport.read(consumer(), 1, 30.0)):
            pass
        return found

    reading = asyncio.create_task(read())
    await asyncio.sleep(0.01)
    await transport.append(outgoing(1, delay=0.05))
    async with asyncio.timeout(PATIENCE):
        assert numbers(await reading) == [1]


async def test_of_those_who_wait_for_an_event_one_gets_it() -> None:
    transport = MemoryTransport()
    waiting = [asyncio.create_task(transport.read(consumer(name), 5, 0.2)) for name in ("ann", "bob")]
    other = asyncio.create_task(transport.read(consumer("cid", group="shipping"), 5, 0.2))
    await asyncio.sleep(0.01)
    await transport.append(outgoing(1))
    assert sorted(numbers((await waiting[0]) + (await waiting[1]))) == [1]
    assert numbers(await other) == [1]
