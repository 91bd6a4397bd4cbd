"""/livez and /readyz. What they say while a server is away: see test_outages."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import JsonValue
from redis.asyncio import Redis

from eventbus import Circuit, EventBus, Unavailable
from gateway import readiness
from gateway.readiness import CHECKS, Check
from handlers.lead.events import EnrichLead
from tests.gateway.client import Client, Gateway, running
from tests.gateway.conftest import migrate
from tests.servers import OwnPostgres, OwnRedis, Reached
from tests.waiting import PATIENCE, eventually

ENRICH = EnrichLead(lead_id="7", organization_id="acme")


async def test_alive_and_ready_without_a_token(gateway: Gateway) -> None:
    nobody = gateway.bearer("")
    live = await nobody.get("/livez")
    assert (live.status, live.body) == (200, {"status": "alive"})
    ready = await nobody.get("/readyz")
    assert (ready.status, ready.body) == (200, {"status": "ready", "checks": {"redis": "ok", "postgres": "ok"}})
    assert (await nobody.send("HEAD", "/readyz")).status == 200


async def test_details_for_who_asks(gateway: Gateway, bus: EventBus, ann: Client) -> None:
    await ann.post("/api/leads", {"name": "Lea"})
    await bus.publish(ENRICH)
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
        assert (await bus.publish(ENRICH)).status == "spooled"
        ready = await gateway.bearer("").get("/readyz?verbose")
        assert ready.body["checks"] == {"redis": "away", "postgres": "ok", "spool": "ok"}
        assert ready.body["details"]["spool"]["records"] == 1
        assert ready.body["details"]["streams"]["state"] == "away"


async def shows(gateway: Gateway, status: int, word: str, checks: dict[str, str]) -> None:
    """Returns when /readyz does: a machine that stands still may make `no answer` of any state for a moment."""

    async def so() -> bool:
        ready = await gateway.bearer("").get("/readyz")
        return (ready.status, ready.body) == (status, {"status": word, "checks": checks})

    await eventually(so)


async def test_with_redis_away_it_is_fit_while_the_spool_takes_what_is_sent(
    own_redis: OwnRedis, own_postgres: OwnPostgres, reached: Reached, tmp_path: Path
) -> None:
    redis, postgres = await asyncio.gather(asyncio.to_thread(own_redis), asyncio.to_thread(own_postgres))
    await migrate(postgres.url)
    spool = tmp_path / "spools" / "spool.jsonl"
    spool.parent.mkdir()
    async with (
        EventBus(redis.url, database=reached(postgres.url), spool=spool, spool_bytes=20_000) as bus,
        running(bus) as gateway,
    ):
        await asyncio.to_thread(redis.kill)
        await shows(gateway, 200, "degraded", {"redis": "away", "postgres": "ok", "spool": "ok"})
        spool.parent.rename(tmp_path / "elsewhere")
        await shows(gateway, 503, "not ready", {"redis": "away", "postgres": "ok", "spool": "away"})
        (tmp_path / "elsewhere").rename(spool.parent)
        await fill(bus)
        await shows(gateway, 503, "not ready", {"redis": "away", "postgres": "ok", "spool": "full"})
        await asyncio.to_thread(redis.start)
        await shows(gateway, 200, "ready", {"redis": "ok", "postgres": "ok"})
        await eventually(lambda: emptied(bus))
        await asyncio.to_thread(redis.kill)
        await asyncio.to_thread(postgres.kill)  # the spool stands in for Redis, and for nothing else
        await shows(gateway, 503, "not ready", {"redis": "away", "postgres": "away", "spool": "ok"})


async def fill(bus: EventBus) -> None:
    """Publish until the spool takes no more."""
    with suppress(Unavailable):
        while (await bus.publish(ENRICH)).status == "spooled":
            continue


async def emptied(bus: EventBus) -> bool:
    assert bus.spool is not None
    return not bus.spool.waits


async def test_a_redis_that_is_silent_is_not_waited_for_where_there_is_a_spool(
    own_redis: OwnRedis, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for /readyz has little patience himself, and would take every gateway out of use."""
    monkeypatch.setattr(readiness, "CHECK_TIMEOUT", PATIENCE)  # the connection gives up before, and says `away`
    redis = await asyncio.to_thread(own_redis)
    async with (
        EventBus(redis.url, database=database_url, spool=tmp_path / "spool.jsonl") as bus,
        running(bus) as gateway,
    ):
        await asyncio.to_thread(redis.pause)
        try:
            ready = await gateway.bearer("").get("/readyz")
        finally:
            await asyncio.to_thread(redis.resume)
        assert (ready.status, ready.body["checks"]["redis"]) == (200, "no answer")


async def test_a_redis_that_takes_no_writes_is_not_well_because_it_answers(
    own_redis: OwnRedis, database_url: str, tmp_path: Path
) -> None:
    redis = await asyncio.to_thread(own_redis)
    async with (
        EventBus(redis.url, database=database_url, spool=tmp_path / "spool.jsonl") as spooling,
        EventBus(redis.url, database=database_url) as plain,
        running(spooling) as first,
        running(plain) as second,
        Redis.from_url(redis.url, socket_timeout=PATIENCE) as client,
    ):
        await client.config_set("maxmemory", "1mb")
        await shows(first, 200, "degraded", {"redis": "full", "postgres": "ok", "spool": "ok"})
        await shows(second, 503, "not ready", {"redis": "full", "postgres": "ok"})
        await client.config_set("maxmemory", "0")
        await client.replicaof("127.0.0.1", "1")
        await shows(first, 200, "degraded", {"redis": "away", "postgres": "ok", "spool": "ok"})
        await shows(second, 503, "not ready", {"redis": "away", "postgres": "ok"})
        await client.replicaof("NO", "ONE")
        for gateway in (first, second):
            await shows(gateway, 200, "ready", {"redis": "ok", "postgres": "ok"})


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
