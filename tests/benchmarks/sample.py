"""A small run, as if it had been measured: figures of the size that they have."""

from benchmarks.running.outcome import Absence, Competitor, Environment, Metric, Outcome, Reading
from benchmarks.suites import alone, latency, memory, processes, recovery, scale, throughput

OURS = Competitor(key="eventbus", name="eventbus", version="0.1.0", language="Python", guarantees="at least once")
RAW = Competitor(key="raw", name="redis-py, raw", version="8.1.0", language="Python", guarantees="none")
BULLMQ = Competitor(key="bullmq", name="bullmq", version="5.1", language="Node.js 20", guarantees="at least once")
SAQ = Competitor(key="saq", name="saq", version="0.26", language="Python", guarantees="at least once")
ARQ = Competitor(key="arq", name="arq", version="0.28", language="Python", guarantees="at least once")

VALUES: dict[tuple[str, str], dict[str, float]] = {
    ("throughput", "publish"): {"eventbus": 130_000, "raw": 85_000, "bullmq": 18_000, "saq": 9_600, "arq": 5_000},
    ("throughput", "consume"): {"eventbus": 78_000, "raw": 196_000, "bullmq": 12_490, "saq": 1_979, "arq": 2_249},
    ("throughput", "both"): {"eventbus": 41_000, "raw": 60_000, "bullmq": 7_000, "saq": 1_500, "arq": 400},
    ("latency", "p50"): {"eventbus": 0.41, "raw": 0.30, "bullmq": 1.19, "saq": 2.1, "arq": 251},
    ("latency", "p95"): {"eventbus": 0.62, "raw": 0.50, "bullmq": 2.20, "saq": 4.0, "arq": 480},
    ("latency", "p99"): {"eventbus": 0.91, "raw": 0.73, "bullmq": 3.95, "saq": 9.0, "arq": 499},
    ("alone", "publish"): {"eventbus": 95, "raw": 92, "bullmq": 210, "saq": 260, "arq": 390},
    ("memory", "root-valkey"): {"eventbus": 218, "raw": 110, "bullmq": 420, "saq": 664, "arq": 500},
    ("memory", "descended-valkey"): {"eventbus": 330},
    ("processes", "waiting"): {"eventbus": 18_600, "bullmq": 11_000, "saq": 1_900, "arq": 2_000},
    ("processes", "fleet-1"): {"eventbus": 18_600},
    ("processes", "fleet-2"): {"eventbus": 36_000},
    ("recovery", "rerun"): {"eventbus": 8.1},
    ("scale", "backlog-10000"): {"eventbus": 60_000},
    ("scale", "backlog-100000"): {"eventbus": 59_000},
    ("scale", "backlog-1000000"): {"eventbus": 57_000},
}
SPREAD = (0.96, 1.0, 1.02)  # of the rounds, around the value

ENVIRONMENT = Environment(
    machine={
        "cpu": "A processor",
        "cores": "2",
        "memory": "8.0 GiB",
        "kernel": "Linux 6.1",
        "loadBefore": "0.1 0.1 0.1",
    },
    versions={"python": "3.11.7", "redis": "8.1.0", "aiohttp": "not installed"},
    server={"name": "valkey", "version": "9.1.2", "appendonly": "yes", "appendfsync": "everysec"},
    commit="0123456789ab",
)


def sample(values: dict[tuple[str, str], dict[str, float]] | None = None) -> Outcome:
    """`values` by suite and metric, then by contender, instead of VALUES."""
    return Outcome(
        date="2026-11-22T10:00:00+00:00",
        environment=ENVIRONMENT,
        settings={"rounds": 3, "suites": ["throughput", "latency"]},
        competitors=[OURS, RAW, BULLMQ, SAQ, ARQ],
        metrics=metrics(),
        readings=[
            Reading(suite=suite, metric=metric, contender=key, round=number, value=value * factor)
            for (suite, metric), found in (VALUES if values is None else values).items()
            for key, value in found.items()
            for number, factor in enumerate(SPREAD, 1)
        ],
        absences=[Absence(contender="celery", kind="unprepared", reason="no index | no <wheel>\nfor it")],
    )


def metrics() -> list[Metric]:
    modules = (throughput, latency, alone, memory, processes, scale, recovery)
    return [metric for module in modules for metric in module.METRICS]
