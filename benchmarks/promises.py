"""`python -m benchmarks.promises`: what the guarantees say about time, measured. Exit 1 if one is not kept.

Ratios are of runs that take turns, and the other bounds leave a wide margin: but on a loaded machine it may fail."""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, NamedTuple

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.running.processes import cpu_seconds
from benchmarks.running.servers import flush, machine, server
from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run


class Row(NamedTuple):
    """One promise: what it says, what was measured, whether it was kept."""

    promise: str
    bound: str
    measured: str
    kept: bool


class Timed(Event, type="bench.timed"):
    """`due`: when its handler should start, in seconds since the epoch."""

    due: float
    number: int = 0


Started = list[tuple[int, float, float]]  # number, due, start


@asynccontextmanager
async def working(url: str, concurrency: int = 100) -> AsyncIterator[tuple[EventBus, Started]]:
    """A bus, a worker beside it, and what it has started."""
    group, started = Group("bench", concurrency=concurrency), Started()

    @group.on(Timed)
    async def handle(event: Timed, _ctx: Context) -> None:
        started.append((event.number, event.due, time.time()))

    async with EventBus(url) as bus:
        worker = Worker(bus, [group])
        running = asyncio.create_task(worker.run())
        try:
            yield bus, started
        finally:
            await worker.stop()
            await running


async def delays(url: str) -> list[Row]:
    """1,000 delayed events over 5 s, on an idle worker."""
    count, span = 1_000, 5.0
    async with working(url) as (bus, started):

        async def publish(number: int) -> None:
            delay = 0.2 + span * number / count
            await bus.publish(Timed(due=time.time() + delay, number=number), delay=delay)

        await asyncio.gather(*(publish(number) for number in range(count)))
        await _until(lambda: len(started) == count, 30)
    late = sorted(start - due for _, due, start in started)
    p99 = late[int(len(late) * 0.99)]
    return [
        Row("delayed events are never early", "0 early", f"{sum(x < 0 for x in late)} early", late[0] >= 0),
        Row(
            "and hardly late", "p99 <= 100 ms", f"p50 {late[count // 2] * 1e3:.0f}, p99 {p99 * 1e3:.0f} ms", p99 <= 0.1
        ),
    ]


async def schedule(url: str) -> list[Row]:
    """Publishing and consuming 20,000 others, with nothing and with 100,000 events scheduled, in turn."""
    rates: dict[str, list[tuple[float, float]]] = {"none": [], "many": []}
    for _ in range(3):
        for load, scheduled in (("none", 0), ("many", 100_000)):
            await flush(url)
            rates[load].append(await _rates(url, scheduled))
    ratios = [
        statistics.median(rate[i] for rate in rates["many"]) / statistics.median(rate[i] for rate in rates["none"])
        for i in (0, 1)
    ]
    return [
        Row(f"100,000 scheduled do not slow {task} others", ">= 0.85x", f"{ratio:.2f}x", ratio >= 0.85)
        for task, ratio in zip(("publishing", "consuming"), ratios, strict=True)
    ]


async def _rates(url: str, scheduled: int, count: int = 20_000) -> tuple[float, float]:
    async with EventBus(url) as bus:
        for start in range(0, scheduled, 1_000):
            await asyncio.gather(
                *(bus.publish(Timed(due=0, number=n), delay=3600 + n) for n in range(start, start + 1_000))
            )
        began = time.perf_counter()
        for start in range(0, count, 500):
            await asyncio.gather(*(bus.publish(Timed(due=0, number=n)) for n in range(start, start + 500)))
        published = time.perf_counter() - began
    began = time.perf_counter()
    async with working(url) as (_, started):
        await _until(lambda: len(started) == count, 60)
        return count / published, count / (time.perf_counter() - began)


async def priority(url: str) -> list[Row]:
    """A priority-1 event behind 50,000 of priority 10, twenty times; then priority 10 beside endless priority 1."""
    async with EventBus(url) as bus:
        for start in range(0, 50_000, 1_000):
            await asyncio.gather(
                *(bus.publish(Timed(due=0, number=n), priority=10) for n in range(start, start + 1_000))
            )
    waits: list[float] = []
    async with working(url) as (bus, started):
        await _until(lambda: len(started) > 100, 30)
        for number in range(100_000, 100_020):
            due = time.time()
            await bus.publish(Timed(due=due, number=number), priority=1)
            await _until(lambda number=number: any(n == number for n, *_ in started[-5_000:]), 10)  # type: ignore[misc]
            waits.append(next(start - due for n, due, start in started if n == number))
        backlog = sum(n < 100_000 for n, *_ in started)
    await flush(url)
    async with working(url, concurrency=10) as (bus, started):
        for start in range(0, 1_000, 500):
            await asyncio.gather(*(bus.publish(Timed(due=0, number=n), priority=10) for n in range(start, start + 500)))
        before = sum(n < 1_000 for n, *_ in started)
        until = time.time() + 3.0
        number = 1_000
        while time.time() < until:
            await asyncio.gather(*(bus.publish(Timed(due=0, number=number + i), priority=1) for i in range(500)))
            number += 500
        last = sum(n < 1_000 for n, *_ in started) - before
    return [
        Row(
            "priority 1 passes a backlog of 50,000",
            "<= 100 ms",
            f"at most {max(waits) * 1e3:.0f} ms",
            max(waits) <= 0.1,
        ),
        Row("while the backlog goes on", "> 0", f"{backlog:,} of it", backlog > 0),
        Row("priority 10 advances beside endless priority 1", "> 0", f"{last:,} in 3 s", last > 0),
    ]


async def rate(url: str) -> list[Row]:
    """1,000 events through three worker processes that share a limit of 100/s; then a pause under load."""
    async with EventBus(url) as bus:
        fleet = [_process("benchmarks.programs.limited", url) for _ in range(3)]
        try:
            async with Redis.from_url(url) as client:
                await asyncio.sleep(2)  # they are up, and wait
                await asyncio.gather(*(bus.publish(Timed(due=0, number=n)) for n in range(1_000)))
                await _until_async(lambda: _length(client, 1_000), 60)
                starts = sorted(float(start) for start in await client.lrange("bench:starts", 0, -1))
                await asyncio.gather(*(bus.publish(Timed(due=0, number=n)) for n in range(1_000)))
                await _until_async(lambda: _length(client, 1_100), 60)
                paused = time.time()
                await bus.groups.pause("limited")
                await asyncio.sleep(3)
                late = [float(start) - paused for start in await client.lrange("bench:starts", 0, -1)]
        finally:
            for process in fleet:
                process.terminate()
                process.wait(30)
    took = starts[-1] - starts[0]
    most = max(sum(1 for s in starts[i : i + 200] if s - start < 1.0) for i, start in enumerate(starts))
    return [
        Row("100/s over three processes: 1,000 events", "9 - 11 s", f"{took:.2f} s", 9 <= took <= 11),
        Row("in any second", "<= 100", f"at most {most}", most <= 101),
        Row("a pause is heeded", "<= 1 s", f"{max(0.0, *late):.2f} s", max(late) <= 1.0),
    ]


async def idle(url: str, seconds: float = 20.0) -> list[Row]:
    """A worker process of six groups with nothing to do."""
    share, per_second = await idle_costs(url, seconds)
    return [
        Row("an idle worker of six groups", "< 3 % of a core", f"{share:.1%}", share < 0.03),
        Row("and of the server", "< 30 commands/s", f"{per_second:.1f}/s", per_second < 30),
    ]


async def idle_costs(url: str, seconds: float) -> tuple[float, float]:
    """Share of a core, and commands per second to the server."""
    process = _process("benchmarks.programs.idle", url)
    try:
        async with Redis.from_url(url) as client:
            await asyncio.sleep(4)
            cpu, commands = cpu_seconds(process.pid), await _commands(client)
            await asyncio.sleep(seconds)
            share = (cpu_seconds(process.pid) - cpu) / seconds
            return share, (await _commands(client) - commands - 1) / seconds
    finally:
        process.terminate()
        process.wait(30)


PROMISES: dict[str, Callable[[str], Awaitable[list[Row]]]] = {
    "delays": delays,
    "schedule": schedule,
    "priority": priority,
    "rate": rate,
    "idle": idle,
}


def main(
    only: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PROMISES)}; all by default.")] = None,
) -> None:
    """Measure the promises about time."""
    configure("console", level=50)
    rows: list[Row] = []
    with server() as url:
        for name in only or PROMISES:
            Console(stderr=True).print(f"[dim]{name}: {PROMISES[name].__doc__}")
            run(flush(url))
            rows += run(_as_coroutine(PROMISES[name], url))
    table = Table("promise", "bound", "measured", "", title=f"one run, {machine()}")
    for row in rows:
        table.add_row(row.promise, row.bound, row.measured, "kept" if row.kept else "[red]not kept")
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if not all(row.kept for row in rows):
        raise typer.Exit(1)


async def _as_coroutine(promise: Callable[[str], Awaitable[list[Row]]], url: str) -> list[Row]:
    return await promise(url)


async def _until(condition: Callable[[], bool], timeout: float) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


async def _until_async(condition: Callable[[], Awaitable[bool]], timeout: float) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():
            await asyncio.sleep(0.05)


async def _length(client: "Redis", count: int) -> bool:
    return bool(await client.llen("bench:starts") >= count)


async def _commands(client: "Redis") -> int:
    return int((await client.info("stats"))["total_commands_processed"])


def _process(module: str, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", module, url], stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    typer.run(main)
