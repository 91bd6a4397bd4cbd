"""This project, through its public names, with its default policy on: retries, leases, timeouts, validation, metrics.

`python -m benchmarks.contenders.ours TASK …` is its driver, see benchmarks.contenders.driver. Beyond the tasks that
every contender has, `work` is a worker process that runs until SIGTERM.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from uuid import uuid4

from benchmarks.contenders import driver
from benchmarks.running.measure import Figure, Latency, OpenLoop, Stopwatch, Tick
from eventbus import Context, Event, EventBus, Group, Origin, Worker

PUBLISHERS = 500
CONCURRENCY = 100
NAME = "eventbus"
GROUP = "bench"
STREAM = "eb:{bench}:stream"  # where the events are in Redis


class Measured(Event, type="bench.measured"):
    """About 100 bytes of JSON."""

    lead_id: str
    organization_id: str
    note: str


def example(number: int) -> Measured:
    return Measured(lead_id=f"lead-{number:08}", organization_id="org-1", note="x" * 36)


async def publish(
    url: str,
    count: int,
    tick: Tick,
    open_bus: Callable[[str], EventBus] = EventBus,
    *,
    tasks: int = PUBLISHERS,
    delay: float | None = None,
    descended: bool = False,
    first: int = 0,
) -> Figure:
    """Publish from so many tasks, each of which awaits one receipt after the other.

    descended: publish as a handler would, with the ids of the request and of the event that caused it."""
    async with open_bus(url) as bus:
        with Stopwatch() as watch:
            await _publish(bus, count, tick, tasks, delay=delay, descended=descended, first=first)
    return Figure(NAME, "publish", count, watch.seconds)


async def consume(
    url: str,
    count: int,
    tick: Tick,
    open_bus: Callable[[str], EventBus] = EventBus,
    *,
    concurrency: int = CONCURRENCY,
    wait: float = 0.0,
    groups: int = 1,
    first: int = 0,
) -> Figure:
    """Work off what `publish` left in the stream, with a handler of a pydantic payload that does nothing, or waits so
    many seconds.

    groups  how many there are; each of them handles `count` events
    first   only events from this number on count"""
    seen = _Seen(count * groups, tick, wait, first)
    async with open_bus(url) as bus:
        worker = Worker(bus, _groups(seen, concurrency, groups))
        with Stopwatch() as watch:
            running = asyncio.create_task(worker.run())
            await seen.enough.wait()
        await worker.stop()
        await running
    return Figure(NAME, "consume", count * groups, watch.seconds)


async def both(url: str, count: int, tick: Tick, *, tasks: int, concurrency: int) -> Figure:
    """Publish and consume at once, in one process."""
    seen = _Seen(count, tick)
    async with EventBus(url) as bus, _working(bus, _groups(seen, concurrency)):
        with Stopwatch() as watch:
            await _publish(bus, count, _unheard, tasks)
            await seen.enough.wait()
    return Figure(NAME, "both", count, watch.seconds)


async def latency(url: str, rate: float, seconds: float, tick: Tick, *, concurrency: int) -> Latency:
    """An open loop, and a worker in the same process."""
    loop, group = OpenLoop(rate, seconds), Group(GROUP, concurrency=concurrency)

    @group.on(Measured)
    async def handle(event: Measured, _ctx: Context) -> None:
        loop.started(int(event.lead_id.removeprefix("lead-")))

    async with EventBus(url) as bus, _working(bus, [group]):
        await loop.run(lambda number: bus.publish(example(number)), tick)
    return Latency.of(NAME, rate, loop.latencies)


async def alone(url: str, count: int, tick: Tick) -> Figure:
    """A lone `await publish`, one after the other."""
    async with EventBus(url) as bus:
        with Stopwatch() as watch:
            for number in range(count):
                await bus.publish(example(number), key="lead-1")
                if number % 100 == 0:
                    tick(100)
    return Figure(NAME, "alone", count, watch.seconds)


async def work(url: str, *, concurrency: int, wait: float) -> Figure:
    """Handle events until SIGTERM."""
    seen = _Seen(0, _unheard, wait)
    async with EventBus(url) as bus:
        with Stopwatch() as watch:
            await Worker(bus, _groups(seen, concurrency)).run()
    return Figure(NAME, "work", seen.number, watch.seconds)


async def _publish(
    bus: EventBus,
    count: int,
    tick: Tick,
    tasks: int,
    *,
    delay: float | None = None,
    descended: bool = False,
    first: int = 0,
) -> None:
    async def publisher(numbers: range) -> None:
        for done, number in enumerate(numbers, 1):
            event = example(number)
            origin = Origin(str(uuid4()), str(uuid4())) if descended else Origin()
            await bus.publish(event, key=event.lead_id, delay=delay, origin=origin)
            if done % 20 == 0:
                tick(20)

    await asyncio.gather(*(publisher(range(first + start, first + count, tasks)) for start in range(tasks)))


class _Seen:
    """Counts what has been handled, and says when it is enough."""

    def __init__(self, target: int, tick: Tick, wait: float = 0.0, first: int = 0) -> None:
        self.number = 0
        self.enough = asyncio.Event()
        self._target, self._tick, self._wait = target, tick, wait
        self._first = f"lead-{first:08}"

    async def handle(self, event: Measured, _ctx: Context) -> None:
        if self._wait:
            await asyncio.sleep(self._wait)
        if event.lead_id < self._first:
            return
        self.number += 1
        if self.number % 1000 == 0:
            self._tick(1000)
        if self.number == self._target:
            self.enough.set()


def _groups(seen: _Seen, concurrency: int, count: int = 1) -> list[Group]:
    groups = [Group(GROUP if number == 0 else f"{GROUP}-{number}", concurrency=concurrency) for number in range(count)]
    for group in groups:
        group.on(Measured)(seen.handle)
    return groups


@asynccontextmanager
async def _working(bus: EventBus, groups: Sequence[Group]) -> AsyncIterator[None]:
    worker = Worker(bus, groups)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        await running


def _unheard(_events: int) -> None:
    return


def describe() -> dict[str, str]:
    return {
        "name": NAME,
        "version": version("eventbus"),
        "language": "Python",
        "settings": "uvloop, all else as it comes",
        "guarantees": "Acknowledged after the handler; 5 attempts with backoff, then a dead letter; 60 s for an "
        "attempt. What a dead worker held runs again within its lease of 10 s and 1 s more.",
    }


def _options() -> argparse.ArgumentParser:
    options = driver.parser([*TASKS])
    options.add_argument("--delay", type=float, help="publish: seconds that the events are kept back")
    options.add_argument("--descended", action="store_true", help="publish: with correlation and causation ids")
    options.add_argument("--groups", type=int, default=1, help="consume: groups, each of which handles all")
    options.add_argument(
        "--first", type=int, default=0, help="publish: the first event's number; consume: only events from it on count"
    )
    return options


TASKS: dict[str, driver.Task] = {
    "publish": lambda o, tick: publish(
        o.url, o.count, tick, tasks=o.tasks, delay=o.delay, descended=o.descended, first=o.first
    ),
    "consume": lambda o, tick: consume(
        o.url, o.count, tick, concurrency=o.concurrency, wait=o.wait_ms / 1e3, groups=o.groups, first=o.first
    ),
    "both": lambda o, tick: both(o.url, o.count, tick, tasks=o.tasks, concurrency=o.concurrency),
    "latency": lambda o, tick: latency(o.url, o.rate, o.seconds, tick, concurrency=o.concurrency),
    "alone": lambda o, tick: alone(o.url, o.count, tick),
    "work": lambda o, _: work(o.url, concurrency=o.concurrency, wait=o.wait_ms / 1e3),
}


if __name__ == "__main__":
    driver.main(TASKS, describe, _options())
