"""/livez and /readyz. What they say while a server is away: see test_outages."""

import asyncio
from pathlib import Path

import pytest
from pydantic import JsonValue

from eventbus import Circuit, EventBus, Unavailable
from gateway.readiness import CHECKS, Check
from handlers.lead.events import EnrichLead
from tests.gateway.client import Client, Gateway, running
from tests.servers import OwnRedis


async def test_alive_and_ready_without_a_token(gateway: Gateway) -> None:
    nobody = gateway.bearer("")
    live = await nobody.get("/livez")
    assert (live.status, live.body) == (200, {"status": "alive"})
    ready = await nobody.get("/readyz")
    assert (ready.status, ready.body) == (200, {"status": "ready", "checks": {"redis": "ok", "postgres": "ok"}})
    assert (await nobody.send("HEAD", "/readyz")).status == 200


async def test_details_for_who_asks(gateway: Gateway, bus: EventBus, ann: Client) -> None:
    await ann.post("/api/leads", {"name": "Lea"})
    await bus.publish(EnrichLead(lead_id="7", organization_id="acme"))
    for query in ("?verbose", "?verbose=1"):
        ready = await gateway.bearer("").get("/readyz" + query)
        assert (ready.status, ready.body["checks"]) == (200, {"redis": "ok", "postgres": "ok"})
        details = ready.body["details"]
        assert {name: told["state"] for name, told in details.items()} == dict.fromkeys(CHECKS, "ok")
        assert all(0 <= told["ms"] < 2_000 for told in details.values())
        assert details["outbox"]["waiting"] == 1
        assert details["spool"]["configured"] is False
        assert details["streams"]["lead"] == {"dead": 0, "groups": {}}


async def test_services_that_are_not_called_are_counted_and_not_named(gateway: Gateway, bus: EventBus) -> None:
    for name, failures in (("n8n:secret-path", 1), ("n8n:b", 2), ("n8n:c", 3)):
        await bus.transport.circuits.failed(Circuit(name, failures=failures))
    ready = await gateway.bearer("").get("/readyz?verbose")
    told = ready.body["details"]["circuits"]
    assert (ready.status, told["open"], told["failing"]) == (200, 1, 2)
    assert "secret" not in str(ready.body)


async def test_what_waits_in_the_spool_is_told(own_redis: OwnRedis, database_url: str, tmp_path: Path) -> None:
    redis = await asyncio.to_thread(own_redis)
    spool = tmp_path / "spool.jsonl"
    async with EventBus(redis.url, database=database_url, spool=spool) as bus, running(bus) as gateway:
        await asyncio.to_thread(redis.kill)
        assert (await bus.publish(EnrichLead(lead_id="7", organization_id="acme"))).status == "spooled"
        ready = await gateway.bearer("").get("/readyz?verbose")
        assert (ready.status, ready.body["checks"]) == (503, {"redis": "away", "postgres": "ok"})
        assert ready.body["details"]["spool"]["records"] == 1
        assert ready.body["details"]["streams"]["state"] == "away"


async def test_another_dependency_is_a_line(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def moody(_bus: EventBus) -> dict[str, JsonValue]:
        raise Unavailable("N8N", "it does not answer")

    async def asked() -> tuple[int, object]:
        ready = await gateway.bearer("").get("/readyz?verbose")
        return ready.status, ready.body["details"]["n8n"]["state"]

    monkeypatch.setitem(CHECKS, "n8n", Check(moody, decides=False))
    assert await asked() == (200, "away")
    monkeypatch.setitem(CHECKS, "n8n", Check(moody))
    assert await asked() == (503, "away")
