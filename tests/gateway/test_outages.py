"""Servers that go away and come back, behind a gateway that stays."""

import asyncio
import time

import pytest

from eventbus import EventBus
from handlers import GROUPS
from tests.gateway.client import running
from tests.gateway.conftest import migrate
from tests.servers import OwnPostgres, OwnRedis
from tests.waiting import eventually
from tests.working import working

pytestmark = pytest.mark.serial


async def test_redis_away_delays_events_and_nothing_else(own_redis: OwnRedis, database_url: str) -> None:
    redis = await asyncio.to_thread(own_redis)
    async with EventBus(redis.url, database=database_url) as bus, running(bus) as gateway, working(bus, *GROUPS):
        ann = gateway.caller("ann", "acme")
        await asyncio.to_thread(redis.kill)
        created = await ann.post("/api/leads", {"name": "Lea", "email": "lea@example.com", "assignedTo": "ann"})
        assert created.status == 201
        assert (await ann.get(created.headers["Location"])).status == 200
        ready = await ann.get("/readyz")
        assert (ready.status, ready.body["checks"]) == (503, {"redis": "away", "postgres": "ok"})
        assert (await ann.get("/livez")).status == 200

        await asyncio.to_thread(redis.start)

        async def notified() -> bool:
            return len((await ann.get("/api/notifications")).body["items"]) == 1

        await eventually(notified)
        assert (await ann.get("/readyz")).status == 200


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_postgres_away_is_a_problem_within_seconds(own_postgres: OwnPostgres, redis_url: str, fault: str) -> None:
    postgres = await asyncio.to_thread(own_postgres)
    await migrate(postgres.url)
    async with EventBus(redis_url, database=postgres.url) as bus, running(bus) as gateway:
        ann = gateway.caller("ann", "acme")
        assert (await ann.post("/api/leads", {"name": "Lea"})).status == 201
        await asyncio.to_thread(getattr(postgres, fault))
        try:
            began = time.monotonic()
            refused = await ann.post("/api/leads", {"name": "Leo"})
            assert time.monotonic() - began < 7
            assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
            assert int(refused.headers["Retry-After"]) > 0
            began = time.monotonic()
            ready = await ann.get("/readyz")
            assert time.monotonic() - began < 3
            assert ready.status == 503
            assert ready.body["checks"]["postgres"] != "ok"
            assert (await ann.get("/livez")).status == 200
        finally:
            await asyncio.to_thread(postgres.resume if fault == "pause" else postgres.start)

        async def back() -> bool:
            return (await ann.post("/api/leads", {"name": "Leo"})).status == 201

        await eventually(back)
        assert [lead["name"] for lead in (await ann.get("/api/leads")).body["items"]][:1] == ["Leo"]
