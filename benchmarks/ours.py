"""This project, through its public names, with its default policy on: retries, leases, timeouts, validation."""

import asyncio
from collections.abc import Callable

from benchmarks.measure import Figure, Stopwatch, Tick
from eventbus import Context, Event, EventBus, Group, Worker

PUBLISHERS = 500
CONCURRENCY = 100
NAME = "eventbus"


class Measured(Event, type="bench.measured"):
    """About 100 bytes of JSON."""

    lead_id: str
    organization_id: str
    note: str


def example(number: int) -> Measured:
    return Measured(lead_id=f"lead-{number:08}", organization_id="org-1", note="x" * 36)


async def publish(url: str, count: int, tick: Tick, open_bus: Callable[[str], EventBus] = EventBus) -> Figure:
    """500 tasks, each awaiting every receipt."""

    async def publisher(bus: EventBus, numbers: range) -> None:
        for number in numbers:
            await bus.publish(example(number), key="lead-1")
            if number % 100 == 0:
                tick(min(100, numbers.stop - number))

    share = count // PUBLISHERS
    async with open_bus(url) as bus:
        with Stopwatch() as watch:
            await asyncio.gather(*(publisher(bus, range(i * share, (i + 1) * share)) for i in range(PUBLISHERS)))
    return Figure(NAME, "publish", share * PUBLISHERS, watch.seconds)


async def consume(url: str, count: int, tick: Tick, open_bus: Callable[[str], EventBus] = EventBus) -> Figure:
    """A no-op handler of a pydantic payload; what `publish` left in the stream is what it works off."""
    group = Group("bench", concurrency=CONCURRENCY)
    done = asyncio.Event()
    seen = 0

    @group.on(Measured)
    async def handle(_event: Measured, _ctx: Context) -> None:
        nonlocal seen
        seen += 1
        if seen % 1000 == 0:
            tick(1000)
        if seen >= count:
            done.set()

    async with open_bus(url) as bus:
        worker = Worker(bus, [group])
        with Stopwatch() as watch:
            running = asyncio.create_task(worker.run())
            await done.wait()
        await worker.stop()
        await running
    return Figure(NAME, "consume", count, watch.seconds)
