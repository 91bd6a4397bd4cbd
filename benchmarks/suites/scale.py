"""Whether it gets slower when there is more of something: a backlog, groups, delayed events, entries that a dead
consumer has left behind."""

import asyncio
from collections.abc import Sequence
from functools import partial

from benchmarks.contenders.ours import GROUP, STREAM
from benchmarks.running.outcome import Metric
from benchmarks.suites import Plan, Stage, Step, Suite

BACKLOGS = (10_000, 100_000, 1_000_000)
PORTION = 10_000  # events that are taken off a backlog and timed, so that each has the same share of start-up
PORTIONS = 5
GROUPS = (1, 10, 100)
RUNS, FEWER_RUNS = 100_000, 20_000  # runs of handlers, of all groups together
BESIDE = 100_000  # delayed events, or pending entries
COUNT = 20_000  # events that are consumed beside those
DELAY = 3600.0  # seconds
LEASE = 10.0  # seconds; after which the entries of the dead consumer may be taken over

NAME = "scale"


def _metric(name: str, title: str) -> Metric:
    return Metric(suite=NAME, name=name, title=title, unit="/s", better="more")


METRICS = (
    *(_metric(f"backlog-{size}", f"Consume, {size:,} events wait") for size in BACKLOGS),
    *(_metric(f"groups-{count}", f"Handler runs, {count} groups") for count in GROUPS),
    _metric("beside-nothing", "Consume, nothing else is there"),
    _metric("beside-delayed", f"Consume, {BESIDE:,} events are delayed"),
    _metric("beside-pending", f"Consume, a dead consumer has left {BESIDE:,} entries"),
)


async def _backlog(stage: Stage, size: int) -> None:
    left = 0
    for _ in range(2 if stage.plan.quick else PORTIONS):
        if left < PORTION:
            await stage.flush()
            await stage.drive("publish", count=size)
            left = size
        stage.record(f"backlog-{size}", await stage.rate("consume", count=PORTION))
        left -= PORTION


async def _groups(stage: Stage, count: int) -> None:
    events = (FEWER_RUNS if stage.plan.quick else RUNS) // count
    await stage.drive("publish", count=events)
    stage.record(f"groups-{count}", await stage.rate("consume", count=events, groups=count))


async def _beside(stage: Stage, what: str) -> None:
    match what:
        case "delayed":
            await stage.drive("publish", count=BESIDE, delay=DELAY)
        case "pending":
            await stage.drive("publish", count=BESIDE)
            await _abandon(stage)
        case _:
            pass
    await stage.drive("publish", count=COUNT, first=BESIDE)
    stage.record(f"beside-{what}", await stage.rate("consume", count=COUNT, first=BESIDE))


async def _abandon(stage: Stage) -> None:
    """A consumer takes everything and is never seen again. Returns when its lease has run out."""
    async with stage.redis() as client:
        await client.xgroup_create(STREAM, GROUP, "0")
        while await client.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=1000):
            pass
    await asyncio.sleep(LEASE)


def _steps(plan: Plan) -> Sequence[Step]:
    backlogs = BACKLOGS[:-1] if plan.quick else BACKLOGS
    beside = () if plan.quick else ("nothing", "delayed", "pending")
    return [
        *(Step(plan.ours, f"backlog of {size:,}", partial(_backlog, size=size)) for size in backlogs),
        *(Step(plan.ours, f"{count} groups", partial(_groups, count=count)) for count in GROUPS),
        *(Step(plan.ours, f"{what} beside", partial(_beside, what=what)) for what in beside),
    ]


SUITE = Suite(NAME, METRICS, _steps)
