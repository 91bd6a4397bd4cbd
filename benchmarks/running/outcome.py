"""What a run of the suites found, and the JSON file that keeps it: benchmarks/results/*.json."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

FOLDER = Path(__file__).parents[1] / "results"
LATEST = FOLDER / "latest.json"  # of the last whole run
PARTIAL = FOLDER / "partial.json"  # of a quick run, or of some suites


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Metric(_Model):
    """Something that a suite measures. `title` heads a table and a plot; `better` says which end is the good one."""

    suite: str
    name: str
    title: str
    unit: str
    better: Literal["more", "less"]


class Competitor(_Model):
    """A contender as its driver describes it; `key` is its name on the command line."""

    key: str
    name: str
    version: str = ""
    language: str = ""
    settings: str = ""
    guarantees: str = ""


class Reading(_Model):
    """What one contender showed in one round."""

    suite: str
    metric: str
    contender: str
    round: int
    value: float


class Absence(_Model):
    """Why there is no reading. `suite` is empty if the contender took no part at all."""

    suite: str = ""
    step: str = ""
    contender: str
    kind: Literal["unprepared", "unsupported", "failed"]
    reason: str


class Environment(_Model):
    """What was measured on. Strings, as the system and the packages name themselves."""

    machine: dict[str, str]
    versions: dict[str, str]
    server: dict[str, str]
    commit: str


class Outcome(_Model):
    """A run. Everything that the report says is computed from this alone."""

    schema_version: Literal[1] = 1
    date: str
    environment: Environment
    settings: dict[str, str | int | float | bool | list[str]]
    sizes: dict[str, int] = {}  # by "contender, suite": how many events a step was, where that was found out
    competitors: list[Competitor]
    metrics: list[Metric] = []
    readings: list[Reading] = []
    absences: list[Absence] = []

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_bytes())

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")

    def values(self, suite: str, metric: str, contender: str) -> list[float]:
        """One for each round in which it was measured."""
        wanted = (suite, metric, contender)
        return [found.value for found in self.readings if (found.suite, found.metric, found.contender) == wanted]

    def median(self, suite: str, metric: str, contender: str) -> float | None:
        values = self.values(suite, metric, contender)
        return statistics.median(values) if values else None

    def ranking(self, metric: Metric) -> list[tuple[Competitor, float]]:
        """Who was measured by it, with the medians of the rounds, the best first."""
        found = [(entry, self.median(metric.suite, metric.name, entry.key)) for entry in self.competitors]
        present = [(entry, median) for entry, median in found if median is not None]
        return sorted(present, key=lambda pair: pair[1], reverse=metric.better == "more")

    def best(self, suite: str, metric: str, among: Callable[[Competitor], bool]) -> float | None:
        """The highest median of those contenders."""
        medians = [self.median(suite, metric, entry.key) for entry in self.competitors if among(entry)]
        return max((median for median in medians if median is not None), default=None)
