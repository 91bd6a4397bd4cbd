"""`python -m benchmarks.soak --events 1000000`: does anything grow? One process publishes, another one consumes; when
all is done and trimmed, Redis and the worker must be where they were after the first tenth. Exit code 1 if not."""

import asyncio
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NamedTuple

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.contenders.ours import Measured, example
from benchmarks.running.processes import resident_bytes
from benchmarks.running.servers import machine, server
from eventbus import Context, EventBus, Group, Retention, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run

PUBLISHERS = 200
BACKLOG = 20_000  # events that may wait: the publishers go no faster than the worker
KEPT = 1_000  # settled entries that the streams keep
SAMPLE_INTERVAL = 2.0  # seconds
SETTLE_TIMEOUT = 120.0  # seconds until the last has been trimmed
# Differences that are no growth: kept entries and nodes that are not full, and the noise of allocators.
SPARE_ENTRIES, SPARE_REDIS, SPARE_WORKER = 2 * KEPT, 4 * 2**20, 12 * 2**20


class Sample(NamedTuple):
    """What is there at a moment; memory in bytes."""

    seconds: float
    done: int
    entries: int
    pending: int
    keys: int
    redis: int
    worker: int


def main(events: Annotated[int, typer.Option(min=10_000, help="How many go through.")] = 1_000_000) -> None:
    """Send events through a worker and compare what is left with what was there in the beginning."""
    with server() as url, _worker(url) as pid:
        samples = run(_soak(url, events, pid))
    early = next(sample for sample in samples if sample.done >= events // 10)
    grown = _grown(early, samples[-1])
    _show(samples, grown, events)
    sys.exit(1 if grown else 0)


@contextmanager
def _worker(url: str) -> Iterator[int]:
    """Runs the worker in a process of its own, so that its memory can be told; the process's id."""
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(url,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.terminate()
        process.join(30)


def _work(url: str) -> None:
    configure("console", level=50)
    run(_consume(url))


async def _consume(url: str) -> None:
    group = Group("bench", concurrency=100)

    @group.on(Measured)
    async def handle(_event: Measured, _ctx: Context) -> None:
        return

    async with EventBus(url, retention=Retention(settled=1.0, settled_count=KEPT)) as bus:
        await Worker(bus, [group]).run()


async def _soak(url: str, events: int, worker: int) -> list[Sample]:
    samples: list[Sample] = []
    began, room = time.monotonic(), asyncio.Event()
    published = 0
    redis = Redis.from_url(url, protocol=2)
    numbers = iter(range(events))

    async def publisher(bus: EventBus) -> None:
        nonlocal published
        for number in numbers:
            await room.wait()
            await bus.publish(example(number))
            published += 1

    async def look() -> Sample:
        sample = await _sample(redis, worker, published, began)
        samples.append(sample)
        if published - sample.done < BACKLOG:
            room.set()
        else:
            room.clear()
        return sample

    async with EventBus(url) as bus, asyncio.timeout(None) as limit:
        publishing = asyncio.gather(*(publisher(bus) for _ in range(PUBLISHERS)))
        while not publishing.done():
            await look()
            await asyncio.wait([publishing], timeout=SAMPLE_INTERVAL / 10)
        await publishing
        limit.reschedule(asyncio.get_running_loop().time() + SETTLE_TIMEOUT)
        try:
            while (sample := await look()).done < events or sample.pending or sample.entries > SPARE_ENTRIES:
                await asyncio.sleep(SAMPLE_INTERVAL / 2)
        except TimeoutError:
            limit.reschedule(None)
    await redis.aclose()
    return samples


async def _sample(redis: Redis, worker: int, published: int, began: float) -> Sample:
    streams = [key async for key in redis.scan_iter("eb:*:stream*", count=1000)]
    entries, pending, lag = 0, 0, 0
    for key in streams:
        entries += await redis.xlen(key)
        groups = await redis.xinfo_groups(key)
        pending += sum(int(group["pending"]) for group in groups)
        lag += sum(int(group["lag"] or 0) for group in groups) if groups else await redis.xlen(key)
    memory = await redis.info("memory")
    return Sample(
        seconds=time.monotonic() - began,
        done=published - pending - lag,
        entries=entries,
        pending=pending,
        keys=await redis.dbsize(),
        redis=int(memory["used_memory"]),
        worker=resident_bytes(worker),
    )


def _grown(early: Sample, late: Sample) -> list[str]:
    """What is more than it may be at the end."""
    bounds = {
        "entries": SPARE_ENTRIES,
        "pending": 0,
        "keys": early.keys,
        "redis": early.redis + SPARE_REDIS,
        "worker": early.worker + SPARE_WORKER,
    }
    return [
        f"{name}: {getattr(late, name):,} > {bound:,}" for name, bound in bounds.items() if getattr(late, name) > bound
    ]


def _show(samples: list[Sample], grown: list[str], events: int) -> None:
    table = Table(title=f"{events:,} events, {machine()}")
    for column in ("seconds", "done", "in streams", "pending", "keys", "Redis MiB", "worker MiB"):
        table.add_column(column, justify="right")
    step = max(1, len(samples) // 12)
    for sample in [*samples[::step], *([] if (len(samples) - 1) % step == 0 else [samples[-1]])]:
        table.add_row(
            f"{sample.seconds:.0f}",
            *(f"{number:,}" for number in (sample.done, sample.entries, sample.pending, sample.keys)),
            *(f"{size / 2**20:.1f}" for size in (sample.redis, sample.worker)),
        )
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    console.print("grown since the first tenth: " + "; ".join(grown) if grown else "nothing has grown", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
