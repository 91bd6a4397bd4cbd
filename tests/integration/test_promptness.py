"""A thousand delayed events over some seconds, their publisher gone: none early, hardly any late. How late on a quiet
machine, python -m benchmarks.promises measures."""

import asyncio
import random
import sys
import time
from datetime import UTC, datetime

from eventbus import Context, Event, EventBus, Group, Worker
from tests.stopwatch import Stopwatch
from tests.waiting import until

COUNT, SPAN = 1_000, 3.0  # events, seconds


class Alarm(Event, type="alarm.rung"):
    """`due`: seconds since the epoch before which it must not ring."""

    due: float
    exact: bool


async def schedule(url: str) -> None:
    """What the publisher's process does. Its machine's clock is the server's: they are one machine."""
    started = time.time() + 2.0  # what is due within a second may be a second late if its publisher is gone
    async with EventBus(url) as bus:

        async def publish(number: int) -> None:
            due = started + random.uniform(0, SPAN)
            if number % 2:
                await bus.publish(Alarm(due=due, exact=True), at=datetime.fromtimestamp(due, UTC))
            else:
                now = time.time()
                await bus.publish(Alarm(due=due, exact=False), delay=due - now)

        await asyncio.gather(*(publish(number) for number in range(COUNT)))


async def test_a_thousand_alarms_ring_on_time(any_redis_url: str) -> None:
    rung: list[tuple[Alarm, float]] = []
    group = Group("bells", concurrency=50)

    @group.on(Alarm)
    async def ring(event: Alarm, ctx: Context) -> None:
        rung.append((event, time.time()))

    async with EventBus(any_redis_url) as bus:
        worker = Worker(bus, [group])
        running = asyncio.create_task(worker.run())
        with Stopwatch() as watch:
            publisher = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, any_redis_url)
            assert await publisher.wait() == 0
            await until(lambda: len(rung) == COUNT)
        await worker.stop()
        await running
    assert min(at - event.due for event, at in rung) >= -0.002, "the servers count milliseconds"
    # A delay begins when the server hears of it; a moment does not depend on that.
    late = sorted(at - event.due for event, at in rung if event.exact)
    assert late[int(len(late) * 0.99)] <= 0.2 + watch.kept_waiting


if __name__ == "__main__":
    asyncio.run(schedule(sys.argv[1]))
