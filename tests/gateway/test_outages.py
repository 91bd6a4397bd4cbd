"""Servers that go away and come back, behind a gateway that stays."""

import asyncio
from pathlib import Path

import pytest

from eventbus import EventBus
from handlers import GROUPS
from tests.gateway.client import running
from tests.gateway.conftest import migrate
from tests.servers import OwnPostgres, OwnRedis, Reached
from tests.stopwatch import Stopwatch
from tests.waiting import eventually
from tests.working import working


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
async def test_postgres_away_is_a_problem_within_seconds(
    own_postgres: OwnPostgres, reached: Reached, redis_url: str, fault: str
) -> None:
    postgres = await asyncio.to_thread(own_postgres)
    await migrate(postgres.url)
    async with EventBus(redis_url, database=reached(postgres.url)) as bus, running(bus) as gateway:
        ann = gateway.caller("ann", "acme")
        assert (await ann.post("/api/leads", {"name": "Lea"})).status == 201
        await asyncio.to_thread(getattr(postgres, fault))
        try:
            with Stopwatch() as refusing:
                refused = await ann.post("/api/leads", {"name": "Leo"})
            assert refusing.seconds < 7
            assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
            assert int(refused.headers["Retry-After"]) > 0
            with Stopwatch() as looking:
                ready = await ann.get("/readyz")
            assert looking.seconds < 3
            assert ready.status == 503
            assert ready.body["checks"]["postgres"] != "ok"
            assert (await ann.get("/livez")).status == 200
        finally:
            await asyncio.to_thread(postgres.resume if fault == "pause" else postgres.start)

        async def back() -> bool:
            return (await ann.post("/api/leads", {"name": "Leo"})).status == 201

        await eventually(back)
        assert [lead["name"] for lead in (await ann.get("/api/leads")).body["items"]][:1] == ["Leo"]


async def test_messages_are_taken_while_redis_is_away_and_there_is_a_spool(
    own_redis: OwnRedis, database_url: str, tmp_path: Path
) -> None:
    redis = await asyncio.to_thread(own_redis)
    spool = tmp_path / "spool.jsonl"
    async with EventBus(redis.url, database=database_url, spool=spool) as bus, running(bus) as gateway:
        ann = gateway.caller("ann", "acme")
        agent = (await ann.post("/api/agents", {"name": "Weather"})).body["id"]
        await asyncio.to_thread(redis.kill)
        body = {"agentId": agent, "message": "Rain?", "channel": "web", "id": "m-1"}
        answers = [await ann.post("/api/messages", body) for _ in range(2)]
        assert [answer.status for answer in answers] == [202, 202]
        assert answers[0].body == answers[1].body
        assert (await ann.get("/api/messages/queue/stats")).status == 503
        health = await ann.get("/api/messages/queue/health")
        assert (health.status, health.body["success"], health.body["data"]["healthy"]) == (503, False, False)
        await asyncio.to_thread(redis.start)

        async def waits() -> bool:
            status = await ann.get("/api/messages/m-1/status")
            return status.status == 200 and bool(status.body["data"]["state"] == "waiting")

        await eventually(waits)
        await eventually(lambda: _length(bus))
        [stream] = await bus.transport.inspect(["message"])
        assert stream.length == 1, "the same id is the same job in the spool as well"


async def _length(bus: EventBus) -> bool:
    assert bus.spool is not None
    return not bus.spool.records


async def test_messages_to_an_agent_that_is_known_are_taken_while_postgres_is_away(
    own_postgres: OwnPostgres, reached: Reached, redis_url: str
) -> None:
    postgres = await asyncio.to_thread(own_postgres)
    await migrate(postgres.url)
    async with EventBus(redis_url, database=reached(postgres.url)) as bus, running(bus) as gateway:
        ann = gateway.caller("ann", "acme")
        agents = [(await ann.post("/api/agents", {"name": name})).body["id"] for name in ("Known", "Other")]
        bodies = [{"agentId": agent, "message": "Rain?", "channel": "web"} for agent in agents]
        assert (await ann.post("/api/messages", bodies[0])).status == 202
        await asyncio.to_thread(postgres.pause)
        try:
            assert (await ann.post("/api/messages", bodies[0])).status == 202
            with Stopwatch() as refusing:
                refused = await ann.post("/api/messages", bodies[1])
            assert refusing.seconds < 7
            assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
        finally:
            await asyncio.to_thread(postgres.resume)
