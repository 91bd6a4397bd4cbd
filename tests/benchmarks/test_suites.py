"""The suites themselves: what they are made of, and the steps that set a scene before they measure."""

import sys

import pytest
from redis.asyncio import Redis

from benchmarks.contenders.ours import GROUP, STREAM
from benchmarks.contenders.registry import Contender, chosen
from benchmarks.running.outcome import Competitor
from benchmarks.suites import Plan, Stage, memory, processes, scale, suites
from tests.waiting import PATIENCE

OURS = Contender(
    "eventbus",
    (sys.executable, "-m", "benchmarks.contenders.ours"),
    Competitor(key="eventbus", name="eventbus", language="Python"),
)


def stage(url: str, found: dict[str, float], *, quick: bool = True) -> Stage:
    return Stage(
        url,
        Plan([OURS], quick=quick, seconds=0.1),
        OURS,
        lambda metric, value, _="", /: found.__setitem__(metric, value),
        lambda _done, _total: None,
    )


def test_every_metric_has_one_suite_and_one_name() -> None:
    places = [(metric.suite, metric.name) for suite in suites().values() for metric in suite.metrics]
    assert len(set(places)) == len(places)
    assert all(suite == name for name, found in suites().items() for suite in {m.suite for m in found.metrics})
    assert {
        "throughput",
        "latency",
        "alone",
        "memory",
        "processes",
        "scale",
        "recovery",
        "idle",
        "gateway",
    } <= suites().keys()


def test_peers_are_chosen_by_name() -> None:
    assert chosen("all", ["a", "b"]) == ["a", "b"]
    assert chosen("none", ["a", "b"]) == []
    assert chosen("b, a", ["a", "b"]) == ["b", "a"]
    with pytest.raises(ValueError, match=r"no such peer: c\. There are: a, b"):
        chosen("a,c", ["a", "b"])


async def test_an_event_takes_more_bytes_with_the_ids_of_its_cause(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, float] = {}
    monkeypatch.setattr(memory, "FEWER_EVENTS", 2_000)
    await memory.SUITE.steps(Plan([OURS]))[0].run(stage(redis_url, found))
    assert found.keys() == {"root-valkey", "descended-valkey"}
    assert 150 < found["root-valkey"] < 300
    assert found["descended-valkey"] > found["root-valkey"] + 2 * 36  # two ids of 36 characters each


async def test_the_dead_consumer_leaves_all_it_took(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "BESIDE", 300)
    monkeypatch.setattr(scale, "COUNT", 200)
    monkeypatch.setattr(scale, "LEASE", 0.0)
    found: dict[str, float] = {}
    [step] = [step for step in scale.SUITE.steps(Plan([OURS])) if step.label == "pending beside"]
    seen: list[int] = []

    async def abandon(setting: Stage) -> None:
        await _abandon(setting)
        async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
            seen.append((await client.xpending(STREAM, GROUP))["pending"])

    _abandon = scale._abandon
    monkeypatch.setattr(scale, "_abandon", abandon)
    await step.run(stage(redis_url, found))
    assert seen == [300]
    assert found["beside-pending"] > 0


async def test_a_fleet_is_measured_while_all_of_it_works(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STUCK", 20.0)
    found: dict[str, float] = {}
    [step] = [step for step in processes.SUITE.steps(Plan([OURS])) if step.label == "2 worker processes"]
    await step.run(stage(redis_url, found))
    assert 100 < found["fleet-2"] < 40_000
