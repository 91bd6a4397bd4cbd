"""/metrics, and what a worker's command serves. What is counted: see tests/unit/telemetry."""

import asyncio
import urllib.request

import aiohttp

from eventbus import EventBus
from handlers.lead.events import EnrichLead
from tests.gateway.client import Gateway
from tests.gateway.test_process import environment, started  # noqa: F401 - a fixture
from tests.unit.telemetry.scrape import parse


async def test_metrics_without_a_token(gateway: Gateway, bus: EventBus) -> None:
    await bus.publish(EnrichLead(lead_id="7", organization_id="acme"))
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        told = parse(await answer.text())
    assert told["eventbus_published_total", "stored", "lead"] == 1


async def test_a_worker_serves_metrics_on_the_port_that_it_is_given(
    environment: dict[str, str],  # noqa: F811 - it is a fixture
) -> None:
    async with started("consumers", environment, "--group", "lead", "--metrics-port", "0") as process:
        port = (await process.line("serving metrics"))["port"]
        await process.line("worker started")

        def read() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text: str = answer.read().decode()
                return text

        assert parse(await asyncio.to_thread(read))["eventbus_in_process", "lead"] == 0
        assert await process.end() == 0
