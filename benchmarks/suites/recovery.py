"""A worker process is killed while it holds an event: how long until the event runs again, in another process.

The lease is the default, 10 s. The peers are not measured: see what each driver says of its guarantees."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence

from redis.asyncio import Redis

from benchmarks.programs.holding import STARTS, UP
from benchmarks.running.child import started
from benchmarks.running.outcome import Metric
from benchmarks.suites import Plan, Stage, Step, Suite

NAME = "recovery"
METRICS = (
    Metric(
        suite=NAME, name="rerun", title="From SIGKILL of a worker until its event runs again", unit="s", better="less"
    ),
)
HOLD = 4.0  # seconds that it is held before the kill: its lease has been renewed at least once
TIMEOUT = 40.0
PROCESSES = 2


async def _measure(stage: Stage) -> None:
    argv = [sys.executable, "-m", "benchmarks.programs.holding", stage.url]
    async with started(argv) as _, started(argv) as _, stage.redis() as client, asyncio.timeout(TIMEOUT):
        while int(await client.get(UP) or 0) < PROCESSES:
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # they read by now
        await stage.drive("publish", count=1, tasks=1)
        holder, _ = await _start(client, 0)
        await asyncio.sleep(HOLD)
        killed = time.time()
        os.kill(holder, signal.SIGKILL)
        other, again = await _start(client, 1)
        if other == holder:
            raise RuntimeError(f"process {holder} started the event twice, and was never killed")
        stage.record("rerun", again - killed)


async def _start(client: Redis, index: int) -> tuple[int, float]:
    """The process that started the event for the n-th time, and when."""
    while (line := await client.lindex(STARTS, index)) is None:
        await asyncio.sleep(0.02)
    pid, _, moment = str(line).partition(" ")
    return int(pid), float(moment)


def _steps(plan: Plan) -> Sequence[Step]:
    return [Step(plan.ours, "SIGKILL", _measure)]


SUITE = Suite(NAME, METRICS, _steps, quick=False)
