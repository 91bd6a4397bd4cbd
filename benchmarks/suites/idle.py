"""What a worker process of six groups costs while there is nothing to do."""

from collections.abc import Sequence

from benchmarks.promises import idle_costs
from benchmarks.running.outcome import Metric
from benchmarks.suites import Plan, Stage, Step, Suite

NAME = "idle"
METRICS = (
    Metric(suite=NAME, name="processor", title="Idle worker of six groups, share of a core", unit="%", better="less"),
    Metric(
        suite=NAME, name="commands", title="Idle worker of six groups, commands to the server", unit="/s", better="less"
    ),
)
SECONDS = 20.0


async def _measure(stage: Stage) -> None:
    share, per_second = await idle_costs(stage.url, SECONDS)
    stage.record("processor", share * 100)
    stage.record("commands", per_second)


def _steps(plan: Plan) -> Sequence[Step]:
    return [Step(plan.ours, "six groups, nothing to do", _measure)]


SUITE = Suite(NAME, METRICS, _steps, rounds=1, quick=False)
