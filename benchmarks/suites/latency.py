"""From the moment at which an event is due to be published to the start of its handler, at a steady 500/s."""

from benchmarks.running.outcome import Metric
from benchmarks.suites import Stage, Suite, by_contender

RATE = 500
PERCENTILES = ("p50", "p95", "p99")


NAME = "latency"
METRICS = tuple(
    Metric(suite=NAME, name=part, title=f"Latency at {RATE}/s, {part}", unit="ms", better="less")
    for part in PERCENTILES
)


async def _measure(stage: Stage) -> None:
    seconds = 3 if stage.plan.quick else 10
    result = await stage.drive("latency", rate=RATE, seconds=seconds)
    for part in PERCENTILES:
        stage.record(part, float(result[part]))


SUITE = Suite(NAME, METRICS, by_contender(_measure))
