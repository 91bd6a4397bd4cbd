"""How long one publish takes while nothing else goes on."""

from benchmarks.running.outcome import Metric
from benchmarks.suites import Stage, Suite, by_contender

PROBE = 200


NAME = "alone"
METRICS = (Metric(suite=NAME, name="publish", title="A lone publish", unit="µs", better="less"),)


async def _measure(stage: Stage) -> None:
    key = (stage.contender.key, "alone")
    if key not in stage.plan.sizes:
        per_second = await stage.rate("alone", count=PROBE)
        stage.plan.sizes[key] = max(PROBE, round(per_second * stage.plan.seconds / 2))
        await stage.flush()
    stage.record("publish", 1e6 / await stage.rate("alone", count=stage.plan.sizes[key]))


SUITE = Suite(NAME, METRICS, by_contender(_measure))
