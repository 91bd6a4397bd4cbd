"""What this project sets out to reach, as ratios of figures of one run, and whether a run reached it."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.contenders.registry import OURS, RAW
from benchmarks.running.outcome import Competitor, Outcome

BULLMQ = "bullmq"
CEILING = 20_000  # events per second of handlers that wait 5 ms, 100 at a time


Sign = Literal["≥", "≤", "<"]
_KEPT = {"≥": operator.ge, "≤": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Goal:
    """`measure`: the figure, or None if something that it needs was not measured."""

    text: str
    bound: float
    sign: Sign
    unit: str
    measure: Callable[[Outcome], float | None]

    @property
    def wanted(self) -> str:
        return f"{self.sign} {self.show(self.bound)}"

    def show(self, value: float) -> str:
        match self.unit:
            case "x":
                return f"{value:.2f}x"
            case "%":
                return f"{value:.1%}"
            case unit:
                return f"{value:,.1f} {unit}"


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    value: float | None

    @property
    def state(self) -> Literal["reached", "not reached", "not measured"]:
        if self.value is None:
            return "not measured"
        return "reached" if _KEPT[self.goal.sign](self.value, self.goal.bound) else "not reached"


def judge(outcome: Outcome) -> list[Verdict]:
    return [Verdict(goal, goal.measure(outcome)) for goal in GOALS]


def _at_least(text: str, bound: float, measure: Callable[[Outcome], float | None], unit: str = "x") -> Goal:
    return Goal(text, bound, "≥", unit, measure)


def _at_most(text: str, bound: float, measure: Callable[[Outcome], float | None], unit: str = "x") -> Goal:
    return Goal(text, bound, "≤", unit, measure)


def _against(suite: str, metric: str, other: str) -> Callable[[Outcome], float | None]:
    """Our figure divided by another contender's."""
    return lambda outcome: _ratio(outcome.median(suite, metric, OURS), outcome.median(suite, metric, other))


def _between(suite: str, metric: str, by: str) -> Callable[[Outcome], float | None]:
    """One of our figures divided by another of ours."""
    return lambda outcome: _ratio(outcome.median(suite, metric, OURS), outcome.median(suite, by, OURS))


def _own(suite: str, metric: str) -> Callable[[Outcome], float | None]:
    return lambda outcome: outcome.median(suite, metric, OURS)


def _against_best_of_python(outcome: Outcome) -> float | None:
    best = outcome.best("throughput", "consume", _is_python_peer)
    return _ratio(outcome.median("throughput", "consume", OURS), best)


def _is_python_peer(entry: Competitor) -> bool:
    return entry.language.startswith("Python") and entry.key not in {OURS, RAW}


def _of_the_ceiling(outcome: Outcome) -> float | None:
    return _ratio(outcome.median("processes", "waiting", OURS), CEILING)


def _ratio(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by


# What the gateway suite calls its metrics: its bare contender is "aiohttp".
GATEWAY, EVENTS, LEADS_P99, BARE = "gateway", "events", "leads-p99", "aiohttp"
MESSAGES, MESSAGES_P99 = "messages", "messages-p99"

GOALS: Sequence[Goal] = (
    _at_least("Publish, of raw pipelines", 1.5, _against("throughput", "publish", RAW)),
    _at_least("Consume, of the raw loop", 0.35, _against("throughput", "consume", RAW)),
    _at_least("Consume, of BullMQ", 6, _against("throughput", "consume", BULLMQ)),
    _at_least("Consume, of the best Python peer", 15, _against_best_of_python),
    _at_most("Latency at 500/s, p99, of the raw loop", 1.5, _against("latency", "p99", RAW)),
    _at_most("A lone publish, of one raw XADD", 1.2, _against("alone", "publish", RAW)),
    _at_most("Bytes in Redis for each queued event", 232, _own("memory", "root-valkey"), "B"),
    _at_most("… that descends from another", 232, _own("memory", "descended-valkey"), "B"),
    _at_most("… on Debian's Redis", 232, _own("memory", "root-redis"), "B"),
    _at_most("… that descends from another, on Debian's Redis", 232, _own("memory", "descended-redis"), "B"),
    _at_least(
        "Consume with a backlog of 1,000,000, of that with 10,000",
        0.85,
        _between("scale", "backlog-1000000", "backlog-10000"),
        "%",
    ),
    _at_least("Two worker processes, of one", 1.9, _between("processes", "fleet-2", "fleet-1")),
    _at_least("Handlers that wait 5 ms, of 20,000/s", 0.9, _of_the_ceiling, "%"),
    _at_least("POST /api/events, of bare aiohttp", 0.4, _against(GATEWAY, EVENTS, BARE)),
    _at_least("POST /api/messages, of bare aiohttp", 0.4, _against(GATEWAY, MESSAGES, BARE)),
    Goal("POST /api/messages at 1,000/s, p99", 10, "<", "ms", _own(GATEWAY, MESSAGES_P99)),
    Goal("POST /api/leads at 500/s, p99", 50, "<", "ms", _own(GATEWAY, LEADS_P99)),
)
