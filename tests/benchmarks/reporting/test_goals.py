"""What was to be reached: reached, not reached, not measured."""

import pytest

from benchmarks.reporting.goals import CEILING, GOALS, judge
from benchmarks.suites import suites
from tests.benchmarks.sample import VALUES, sample

Values = dict[tuple[str, str], dict[str, float]]


def state(values: Values, text: str) -> str:
    [verdict] = [verdict for verdict in judge(sample(values)) if verdict.goal.text == text]
    return verdict.state


@pytest.mark.parametrize(
    ("text", "suite", "metric", "reached", "missed"),
    [
        (
            "Publish, of raw pipelines",
            "throughput",
            "publish",
            {"eventbus": 150, "raw": 100},
            {"eventbus": 149, "raw": 100},
        ),
        (
            "Consume, of the raw loop",
            "throughput",
            "consume",
            {"eventbus": 35, "raw": 100},
            {"eventbus": 34, "raw": 100},
        ),
        (
            "Consume, of BullMQ",
            "throughput",
            "consume",
            {"eventbus": 600, "bullmq": 100},
            {"eventbus": 599, "bullmq": 100},
        ),
        (
            "Consume, of the best Python peer",
            "throughput",
            "consume",
            {"eventbus": 1500, "raw": 9000, "bullmq": 900, "saq": 100, "arq": 99},
            {"eventbus": 1500, "saq": 99, "arq": 101},
        ),
        (
            "Latency at 500/s, p99, of the raw loop",
            "latency",
            "p99",
            {"eventbus": 1.5, "raw": 1},
            {"eventbus": 1.6, "raw": 1},
        ),
        (
            "A lone publish, of one raw XADD",
            "alone",
            "publish",
            {"eventbus": 120, "raw": 100},
            {"eventbus": 121, "raw": 100},
        ),
        ("Bytes in Redis for each queued event", "memory", "root-valkey", {"eventbus": 232}, {"eventbus": 232.1}),
        ("Handlers that wait 5 ms, of 20,000/s", "processes", "waiting", {"eventbus": 18_000}, {"eventbus": 17_999}),
        (
            "POST /api/events, of bare aiohttp",
            "gateway",
            "events",
            {"eventbus": 4, "aiohttp": 10},
            {"eventbus": 3.9, "aiohttp": 10},
        ),
        (
            "POST /api/messages, of bare aiohttp",
            "gateway",
            "messages",
            {"eventbus": 4, "aiohttp": 10},
            {"eventbus": 3.9, "aiohttp": 10},
        ),
        ("POST /api/messages at 1,000/s, p99", "gateway", "messages-p99", {"eventbus": 9.9}, {"eventbus": 10}),
        ("POST /api/leads at 500/s, p99", "gateway", "leads-p99", {"eventbus": 49.9}, {"eventbus": 50}),
    ],
)
def test_a_bound_is_the_last_that_will_do(
    text: str, suite: str, metric: str, reached: dict[str, float], missed: dict[str, float]
) -> None:
    assert state({(suite, metric): reached}, text) == "reached"
    assert state({(suite, metric): missed}, text) == "not reached"
    assert state({}, text) == "not measured"
    others = {key: value for key, value in reached.items() if key != "eventbus"}
    assert state({(suite, metric): others}, text) == "not measured"


def test_ours_against_ours() -> None:
    backlog, fleet = "Consume with a backlog of 1,000,000, of that with 10,000", "Two worker processes, of one"
    few, many = ("scale", "backlog-10000"), ("scale", "backlog-1000000")
    assert state({few: {"eventbus": 100}, many: {"eventbus": 85}}, backlog) == "reached"
    assert state({few: {"eventbus": 100}, many: {"eventbus": 84}}, backlog) == "not reached"
    one, two = ("processes", "fleet-1"), ("processes", "fleet-2")
    assert state({one: {"eventbus": 10}, two: {"eventbus": 19}}, fleet) == "reached"
    assert state({one: {"eventbus": 10}, two: {"eventbus": 18.9}}, fleet) == "not reached"
    assert state({two: {"eventbus": 19}}, fleet) == "not measured"


def test_every_goal_asks_for_what_some_suite_measures() -> None:
    """A metric that was given another name would leave its goal unmeasured for ever."""
    measured = {(metric.suite, metric.name) for suite in suites().values() for metric in suite.metrics}
    keys = ("eventbus", "raw", "bullmq", "saq", "aiohttp")
    values = {place: dict.fromkeys(keys, 1.0) for place in measured}
    assert [v.goal.text for v in judge(sample(values)) if v.state == "not measured"] == []


def test_every_line_that_was_to_be_reached_is_judged() -> None:
    assert [verdict.goal for verdict in judge(sample())] == list(GOALS)
    assert len({goal.text for goal in GOALS}) == len(GOALS)
    assert CEILING == 100 / 0.005
    assert ("gateway", "events") not in VALUES
