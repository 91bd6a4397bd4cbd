"""Handlers that wait 5 ms, as if for another service, 100 at a time: at most 20,000/s for each process.

One process of every contender; and two worker processes of ours against one, by what the server says is settled."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from redis.asyncio import Redis

from benchmarks.contenders.ours import GROUP, STREAM
from benchmarks.running.child import DriverFailed, started
from benchmarks.running.outcome import Metric
from benchmarks.suites import Plan, Stage, Step, Suite

WAIT_MS, CONCURRENCY = 5, 100
CEILING = CONCURRENCY * 1000 // WAIT_MS  # events per second that a process can do at most
FEW = 5_000  # events, for contenders whose throughput is not known yet
POLL = 0.02  # seconds
STUCK = 60.0  # seconds

NAME = "processes"
METRICS = (
    Metric(
        suite=NAME,
        name="waiting",
        title=f"Handlers that wait {WAIT_MS} ms, {CONCURRENCY} at a time",
        unit="/s",
        better="more",
    ),
    Metric(
        suite=NAME,
        name="fleet-1",
        title=f"One worker process, {WAIT_MS} ms",
        unit="/s",
        better="more",
    ),
    Metric(
        suite=NAME,
        name="fleet-2",
        title=f"Two worker processes, {WAIT_MS} ms",
        unit="/s",
        better="more",
    ),
)


async def _waiting(stage: Stage) -> None:
    known = stage.plan.sizes.get((stage.contender.key, "throughput"), FEW)
    most = int(CEILING * stage.plan.seconds)
    count = most if stage.contender is stage.plan.ours else min(most, known)
    await stage.drive("publish", count=count)
    stage.record("waiting", await stage.rate("consume", count=count, wait_ms=WAIT_MS, concurrency=CONCURRENCY))


async def _fleet(stage: Stage, processes: int) -> None:
    """The rate while all of them work: neither the start of the first nor the end of the last counts."""
    count = int(CEILING * processes * max(1.0, stage.plan.seconds))
    await stage.drive("publish", count=count)
    argv = [*stage.contender.argv, "work", "--url", stage.url]
    argv += ["--wait-ms", str(WAIT_MS), "--concurrency", str(CONCURRENCY)]
    async with AsyncExitStack() as running, stage.redis() as client:
        for _ in range(processes):
            await running.enter_async_context(started(argv))
        started_at = time.perf_counter()
        while (busy := await _busy(client)) < processes:
            if time.perf_counter() - started_at > STUCK:  # the first may have done it all before the last was up
                raise DriverFailed(
                    f"only {busy} of {processes} workers have work after {STUCK:g} s: {count:,} events are few"
                )
            await asyncio.sleep(POLL)
        began, settled = time.perf_counter(), await _settled(client)
        now = settled
        while now < count * 0.9:
            if time.perf_counter() - began > STUCK:
                raise DriverFailed(f"{now:,} of {count:,} are settled after {STUCK:g} s")
            stage.progress(now, count)
            await asyncio.sleep(POLL)
            now = await _settled(client)
        stage.record(f"fleet-{processes}", (now - settled) / (time.perf_counter() - began))


async def _busy(client: Redis) -> int:
    """Processes that hold something."""
    if not await client.exists(STREAM) or not await client.xinfo_groups(STREAM):
        return 0
    return sum(1 for consumer in await client.xinfo_consumers(STREAM, GROUP) if consumer["pending"])


async def _settled(client: Redis) -> int:
    [group] = await client.xinfo_groups(STREAM)
    return int(group["entries-read"]) - int(group["pending"])


def _steps(plan: Plan) -> Sequence[Step]:
    return [
        *(Step(contender, contender.about.name, _waiting) for contender in plan.contenders),
        *(Step(plan.ours, f"{number} worker processes", partial(_fleet, processes=number)) for number in (1, 2)),
    ]


SUITE = Suite(NAME, METRICS, _steps)
