"""Rounds in turn; what one contender cannot do is a row, and ends nothing."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.contenders import registry as contenders
from benchmarks.contenders.driver import Unsupported
from benchmarks.contenders.registry import Contender
from benchmarks.running.outcome import Absence, Competitor, Metric, Outcome
from benchmarks.running.runner import run
from benchmarks.suites import Plan, Stage, Step, Suite, by_contender
from benchmarks.suites.throughput import SUITE as THROUGHPUT
from tests.benchmarks.sample import ENVIRONMENT

METRIC = Metric(suite="trial", name="speed", title="Speed", unit="/s", better="more")


class Watcher:
    def __init__(self) -> None:
        self.began: list[str] = []
        self.failed: list[str] = []

    def begin(self, label: str) -> None:
        self.began.append(label)

    def progress(self, done: int, total: int) -> None:
        assert 0 <= done <= total

    def end(self, failed: str | None) -> None:
        self.failed += [failed] if failed else []


def contender(key: str, *argv: str) -> Contender:
    return Contender(key, argv, Competitor(key=key, name=key))


async def perform(suite: Suite, plan: Plan, url: str, watcher: Watcher) -> Outcome:
    outcome = Outcome(
        date="today", environment=ENVIRONMENT, settings={}, competitors=[c.about for c in plan.contenders]
    )
    return await run([suite], plan, url, outcome=outcome, watcher=watcher, keep=lambda _: None)


def trial(turn: Callable[[Stage], Awaitable[None]], rounds: int | None = None) -> Suite:
    return Suite("trial", [METRIC], by_contender(turn), rounds)


async def test_all_take_turns_and_another_one_begins_each_round(redis_url: str) -> None:
    async def turn(stage: Stage) -> None:
        async with stage.redis() as client:
            assert await client.incr("turns") == 1  # the server is empty at every turn
        stage.record("speed", 1.0)

    watcher = Watcher()
    outcome = await perform(trial(turn), Plan([contender("a"), contender("b")], rounds=3), redis_url, watcher)
    assert [label.rpartition(" ")[2] for label in watcher.began] == ["a", "b", "b", "a", "a", "b"]
    assert [(r.contender, r.round) for r in outcome.readings if r.contender == "a"] == [("a", 1), ("a", 2), ("a", 3)]
    assert outcome.metrics == [METRIC]
    assert outcome.absences == []


async def test_a_contender_that_fails_is_a_row_and_the_others_go_on(redis_url: str) -> None:
    turns = {"good": 0, "broken": 0, "unable": 0}

    async def turn(stage: Stage) -> None:
        key = stage.contender.key
        turns[key] += 1
        stage.record("speed", float(turns[key]))
        if key == "broken" and turns[key] == 2:
            raise OSError("no space left")
        if key == "unable":
            raise Unsupported("it has no speed")

    watcher = Watcher()
    plan = Plan([contender("good"), contender("broken"), contender("unable")], rounds=4)
    outcome = await perform(trial(turn), plan, redis_url, watcher)
    assert turns == {"good": 4, "broken": 2, "unable": 1}  # who failed is not asked again
    assert outcome.values("trial", "speed", "good") == [1, 2, 3, 4]
    assert outcome.values("trial", "speed", "broken") == [1, 2]  # what was measured before it failed counts
    assert sorted(watcher.failed) == ["it has no speed", "no space left"]
    assert sorted(outcome.absences, key=lambda gone: gone.contender) == [
        Absence(suite="trial", step="broken", contender="broken", kind="failed", reason="no space left"),
        Absence(suite="trial", step="unable", contender="unable", kind="unsupported", reason="it has no speed"),
    ]


async def test_a_driver_that_dies_does_not_end_a_run_of_throughput(redis_url: str) -> None:
    ours = contender("eventbus", sys.executable, "-m", "benchmarks.contenders.ours")
    dying = contender("dying", sys.executable, "-c", "import sys; sys.exit('it was too much')")
    outcome = await perform(THROUGHPUT, Plan([ours, dying], rounds=1, seconds=0.05), redis_url, Watcher())
    assert {r.metric for r in outcome.readings if r.contender == "eventbus"} == {"publish", "consume", "both"}
    assert all(reading.value > 0 for reading in outcome.readings)
    [gone] = outcome.absences
    assert (gone.contender, gone.kind) == ("dying", "failed")
    assert "it was too much" in gone.reason


async def test_a_suite_may_have_fewer_rounds(redis_url: str) -> None:
    async def turn(stage: Stage) -> None:
        stage.record("speed", 1.0)

    outcome = await perform(trial(turn, rounds=1), Plan([contender("a")], rounds=3), redis_url, Watcher())
    assert len(outcome.readings) == 1


async def test_what_there_is_is_kept_after_each_round(redis_url: str, tmp_path: Path) -> None:
    kept: list[int] = []

    async def turn(stage: Stage) -> None:
        stage.record("speed", 1.0)

    def keep(outcome: Outcome) -> None:
        outcome.save(tmp_path / "kept.json")
        kept.append(len(Outcome.load(tmp_path / "kept.json").readings))

    outcome = Outcome(date="today", environment=ENVIRONMENT, settings={}, competitors=[])
    suites = [trial(turn), Suite("none", [], lambda _: list[Step]())]
    await run(suites, Plan([contender("a")], rounds=2), redis_url, outcome=outcome, watcher=Watcher(), keep=keep)
    assert kept == [1, 2, 2, 2]


class Environments:
    PEERS = ("one", "two")

    def command(self, peer: str) -> list[str]:
        raise RuntimeError(f"{peer} needs node")

    def prepared(self, peer: str) -> bool:
        return False


def test_a_peer_that_cannot_be_prepared_is_a_row() -> None:
    gone = contenders.peer("one", Environments())
    assert gone == Absence(contender="one", kind="unprepared", reason="one needs node")
