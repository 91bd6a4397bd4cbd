"""Runs suites: in rounds, in which all contenders take turns, so that a slow moment of the machine strikes them all."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

from benchmarks.contenders.driver import Unsupported
from benchmarks.running import servers
from benchmarks.running.outcome import Absence, Outcome, Reading
from benchmarks.suites import Plan, Stage, Step, Suite

STEP_TIMEOUT = 900.0  # seconds


class Watcher(Protocol):
    """Is shown how far a run is."""

    def begin(self, label: str) -> None:
        """A step begins."""

    def progress(self, done: int, total: int) -> None:
        """So many of its events are done."""

    def end(self, failed: str | None) -> None:
        """It has ended; with a reason, if nothing came of it."""


async def run(
    suites: Sequence[Suite],
    plan: Plan,
    url: str,
    *,
    outcome: Outcome,
    watcher: Watcher,
    keep: Callable[[Outcome], None],
) -> Outcome:
    """`outcome` with everything that was measured added. After each round, `keep` is handed what there is."""
    for suite in suites:
        met = {"metrics": [*outcome.metrics, *suite.metrics], "competitors": [*outcome.competitors, *suite.others]}
        outcome = outcome.model_copy(update=met)
        steps = list(suite.steps(plan))
        for number in range(1, count_rounds(suite, plan) + 1):
            for step in _rotated(steps, number - 1):
                watcher.begin(f"{number}/{count_rounds(suite, plan)} {suite.name}, {step.label}")
                await servers.flush(url)
                readings, absence = await _take(
                    step, suite.name, number, partial(Stage, url, plan, step.contender, progress=watcher.progress)
                )
                watcher.end(absence.reason if absence else None)
                absences = [*outcome.absences, absence] if absence else outcome.absences
                update = {"readings": [*outcome.readings, *readings], "absences": absences}
                outcome = outcome.model_copy(update=update)
                if absence:  # a peer that gets stuck would do so in every round
                    steps.remove(step)
            sizes = {f"{contender}, {task}": size for (contender, task), size in plan.sizes.items()}
            outcome = outcome.model_copy(update={"sizes": sizes})
            keep(outcome)
    return outcome


def count_rounds(suite: Suite, plan: Plan) -> int:
    return plan.rounds if suite.rounds is None else min(plan.rounds, suite.rounds)


async def _take(
    step: Step, suite: str, number: int, stage: Callable[..., Stage]
) -> tuple[list[Reading], Absence | None]:
    """The readings of one step, and why it failed, if it did. Readings from before the failure count."""
    readings: list[Reading] = []

    def record(metric: str, value: float, contender: str = "", /) -> None:
        key = contender or step.contender.key
        found = Reading(suite=suite, metric=metric, contender=key, round=number, value=value)
        readings.append(found)

    def absence(kind: Literal["unsupported", "failed"], reason: str) -> Absence:
        return Absence(suite=suite, step=step.label, contender=step.contender.key, kind=kind, reason=reason)

    try:
        async with asyncio.timeout(STEP_TIMEOUT):
            await step.run(stage(record=record))
    except Unsupported as error:
        return readings, absence("unsupported", str(error))
    except Exception as error:  # noqa: BLE001 - one contender's failure is a row of the table, and not the end of the run
        return readings, absence("failed", str(error) or type(error).__name__)
    return readings, None


def _rotated(steps: Sequence[Step], by: int) -> list[Step]:
    """Each round begins with another step: nobody is always first, or always behind the same neighbour's leftovers."""
    start = by % len(steps) if steps else 0
    return [*steps[start:], *steps[:start]]
