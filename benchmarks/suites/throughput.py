"""How many events a second: published, consumed, and both at once in one process."""

from benchmarks.running.outcome import Metric
from benchmarks.suites import Stage, Suite, by_contender

PROBES = (2_000, 20_000)  # events of the trials that find out how many events a step has
BRIEF = 0.25  # seconds: a trial that is over so soon has told little
MOST = 400_000


NAME = "throughput"
METRICS = (
    Metric(suite=NAME, name="publish", title="Publish, 500 tasks await their receipts", unit="/s", better="more"),
    Metric(suite=NAME, name="consume", title="Consume, a handler that does nothing", unit="/s", better="more"),
    Metric(suite=NAME, name="both", title="Publish and consume in one process", unit="/s", better="more"),
)


async def _measure(stage: Stage) -> None:
    count = await size(stage)
    stage.record("publish", await stage.rate("publish", count=count))
    stage.record("consume", await stage.rate("consume", count=count))
    await stage.flush()
    stage.record("both", await stage.rate("both", count=count // 2))


async def size(stage: Stage) -> int:
    """How many events keep this contender busy for the time that a step shall take; found out once. All contenders work
    for the same time, so that none is measured while it warms up, and none for an hour."""
    key = (stage.contender.key, "throughput")
    if key not in stage.plan.sizes:
        slowest = await _probe(stage)
        stage.plan.sizes[key] = min(MOST, max(PROBES[0], int(slowest * stage.plan.seconds) // 1000 * 1000))
    return stage.plan.sizes[key]


async def _probe(stage: Stage) -> float:
    """Events per second of the slower task."""
    slowest = 0.0
    for count in PROBES:
        slowest = min([await stage.rate(task, count=count) for task in ("publish", "consume")])
        await stage.flush()
        if count / slowest > BRIEF:
            break
    return slowest


SUITE = Suite(NAME, METRICS, by_contender(_measure))
