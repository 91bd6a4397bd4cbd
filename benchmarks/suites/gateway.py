"""The gateway over HTTP, beside a bare aiohttp handler that is sent the same bytes: see benchmarks.gateway.

It starts servers of its own, a PostgreSQL among them."""

import asyncio
from collections.abc import Sequence

import aiohttp

from benchmarks import gateway
from benchmarks.reporting.goals import BARE, EVENTS, GATEWAY, LEADS_P99, MESSAGES, MESSAGES_P99
from benchmarks.running.outcome import Competitor, Metric
from benchmarks.suites import Plan, Stage, Step, Suite

METRICS = (
    Metric(suite=GATEWAY, name=EVENTS, title="POST /api/events", unit="/s", better="more"),
    Metric(suite=GATEWAY, name=MESSAGES, title="POST /api/messages", unit="/s", better="more"),
    Metric(suite=GATEWAY, name="messages-p50", title="POST /api/messages at 1,000/s, p50", unit="ms", better="less"),
    Metric(suite=GATEWAY, name=MESSAGES_P99, title="POST /api/messages at 1,000/s, p99", unit="ms", better="less"),
    Metric(suite=GATEWAY, name="leads-p50", title="POST /api/leads at 500/s, p50", unit="ms", better="less"),
    Metric(suite=GATEWAY, name=LEADS_P99, title="POST /api/leads at 500/s, p99", unit="ms", better="less"),
)
LIMIT = Competitor(
    key=BARE,
    name="aiohttp, bare",
    version=aiohttp.__version__,
    language="Python",
    settings="uvloop",
    guarantees="None: parses the body and answers 202. The limit of the gateway, no peer.",
)


async def _measure(stage: Stage) -> None:
    seconds, lead_seconds = (2.0, 4.0) if stage.plan.quick else (5.0, 20.0)
    figures = await asyncio.to_thread(gateway.measure, 1, seconds, lead_seconds)
    if figures.failures:
        raise RuntimeError(f"{figures.failures:,} requests were not answered as they should be")
    for name, turns in ((EVENTS, figures.events), (MESSAGES, figures.messages)):
        stage.record(name, turns.median("gateway"))
        stage.record(name, turns.median("bare"), BARE)
    if figures.steady is not None:
        stage.record("messages-p50", figures.steady.answered.p50)
        stage.record(MESSAGES_P99, figures.steady.answered.p99)
    if figures.leads is not None:
        stage.record("leads-p50", figures.leads.answered.p50)
        stage.record(LEADS_P99, figures.leads.answered.p99)


def _steps(plan: Plan) -> Sequence[Step]:
    return [Step(plan.ours, "bare aiohttp and the gateway in turn", _measure)]


SUITE = Suite(GATEWAY, METRICS, _steps, others=[LIMIT])
