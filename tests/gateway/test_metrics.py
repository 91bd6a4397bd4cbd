"""/metrics, and what a worker's command serves. What is counted: see tests/unit/telemetry."""

import asyncio
import urllib.request

import aiohttp

from eventbus import EventBus
from handlers.lead.events import EnrichLead
from tests.gateway.client import Client, Gateway
from tests.gateway.test_process import environment, started  # noqa: F401 - a fixture
from tests.unit.telemetry.scrape import parse
from tests.waiting import PATIENCE, eventually


async def test_metrics_without_a_token(gateway: Gateway, bus: EventBus) -> None:
    await bus.publish(EnrichLead(lead_id="7", organization_id="acme"))
    async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        told = parse(await answer.text())
    assert told["eventbus_published_total", "stored", "lead"] == 1


async def scraped(gateway: Gateway) -> dict[tuple[str, ...], float]:
    async with gateway.session.get(f"{gateway.url}/metrics") as answer:
        return parse(await answer.text())


async def test_requests_are_counted_by_their_route(gateway: Gateway, ann: Client) -> None:
    for number in range(3):
        await ann.get(f"/api/leads/{number}")
    await ann.get("/crm/leads")
    await ann.post("/api/leads", {"name": "Lea"})
    told = await scraped(gateway)
    assert told["gateway_requests_total", "GET", "/api/leads/{lead_id}", "404"] == 3
    assert told["gateway_requests_total", "GET", "/crm/leads", "200"] == 1
    assert told["gateway_requests_total", "POST", "/api/leads", "201"] == 1
    assert told["gateway_request_seconds_count", "GET", "/api/leads/{lead_id}"] == 3
    assert 0 < told["gateway_request_seconds_sum", "POST", "/api/leads"] < 10


async def test_what_clients_make_up_is_no_label(gateway: Gateway, ann: Client) -> None:
    for method in ("PROPFIND", "LOCK", "PUT", "TRACE", "OPTIONS"):
        await ann.get(f"/{method}")
        await ann.send(method, "/api/leads")
    labels = {key[1:3] for key in await scraped(gateway) if key[0] == "gateway_requests_total"}
    assert labels <= {("GET", "none"), ("other", "none"), ("GET", "/metrics")}


async def test_a_conversation_is_no_slow_request(gateway: Gateway, ann: Client) -> None:
    async with ann.socket() as socket:
        await socket.receive()

    async def ended() -> bool:
        return ("gateway_requests_total", "GET", "/ws/chat", "101") in await scraped(gateway)

    await eventually(ended)
    assert (await scraped(gateway))["gateway_request_seconds_count", "GET", "/ws/chat"] == 0


async def test_a_worker_serves_metrics_on_the_port_that_it_is_given(
    environment: dict[str, str],  # noqa: F811 - it is a fixture
) -> None:
    async with started("consumers", environment, "--group", "lead", "--metrics-port", "0") as process:
        port = (await process.line("serving metrics"))["port"]
        await process.line("worker started")

        def read() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
                text: str = answer.read().decode()
                return text

        assert parse(await asyncio.to_thread(read))["eventbus_in_process", "lead"] == 0
        assert await process.end() == 0
