"""The suites, and the seam between them and the runner.

A suite is a module with `SUITE: Suite`. To add one: write the module, and name it in MODULES.
"""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from redis.asyncio import Redis

from benchmarks.contenders.registry import Contender
from benchmarks.running import servers
from benchmarks.running.child import Result, drive
from benchmarks.running.outcome import Competitor, Metric

MODULES = (
    "benchmarks.suites.throughput",
    "benchmarks.suites.latency",
    "benchmarks.suites.alone",
    "benchmarks.suites.memory",
    "benchmarks.suites.processes",
    "benchmarks.suites.scale",
    "benchmarks.suites.recovery",
    "benchmarks.suites.idle",
    "benchmarks.suites.gateway",
)


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    seconds  that a step shall take; a trial with a few events finds out how many events that is
    """

    contenders: Sequence[Contender]
    rounds: int = 3
    seconds: float = 4.0
    quick: bool = False
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # events by contender and task, once found out

    @property
    def ours(self) -> Contender:
        return self.contenders[0]


class Record(Protocol):
    """Keeps what was measured; of this step's contender, or of another one by its key."""

    def __call__(self, metric: str, value: float, contender: str = "", /) -> None: ...


@dataclass
class Stage:
    """What a step works with: an empty server, its contender, a place to put what it measures."""

    url: str
    plan: Plan
    contender: Contender
    record: Record
    progress: Callable[[int, int], None]  # events done, of how many

    async def drive(self, task: str, url: str | None = None, **options: str | float) -> Result:
        """Run the contender's driver; options as on its command line, with `_` for `-`, and True for a flag.

        Raises Unsupported, DriverFailed: a step leaves both to the runner."""
        total = int(options.get("count", 0))
        words = [word for name, value in options.items() for word in _option(name, value)]
        argv = [*self.contender.argv, task, "--url", url or self.url, *words]
        return await drive(argv, lambda done: self.progress(done, total))

    async def rate(self, task: str, **options: str | float) -> float:
        """As `drive`; events per second."""
        result = await self.drive(task, None, **options)
        return float(result["events"]) / float(result["seconds"])

    async def flush(self) -> None:
        await servers.flush(self.url)

    def redis(self) -> Redis:
        """A client of one's own, to be used with `async with`."""
        return Redis.from_url(self.url, protocol=2, decode_responses=True)


def _option(name: str, value: str | float) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, str(value)]


@dataclass(frozen=True)
class Step:
    """One contender's turn in a round. `run` may raise anything: the error becomes a row of the table, and the other
    steps go on, without this one in later rounds."""

    contender: Contender
    label: str
    run: Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Suite:
    """metrics  in the order in which the report shows them
    steps    of one round, which the runner takes in turn, each on an empty server
    rounds   at most so many; None: as many as the plan says
    quick    whether it belongs to a quick run
    others   who takes part in this suite alone
    """

    name: str
    metrics: Sequence[Metric]
    steps: Callable[[Plan], Sequence[Step]]
    rounds: int | None = None
    quick: bool = True
    others: Sequence[Competitor] = ()


def by_contender(run: Callable[[Stage], Awaitable[None]]) -> Callable[[Plan], Sequence[Step]]:
    """One step for every contender, all with the same `run`."""
    return lambda plan: [Step(contender, contender.about.name, run) for contender in plan.contenders]


def suites() -> dict[str, Suite]:
    """All that there are, by name."""
    found: list[Suite] = [importlib.import_module(module).SUITE for module in MODULES]
    return {suite.name: suite for suite in found}
