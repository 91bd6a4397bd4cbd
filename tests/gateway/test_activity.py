"""GET /api/metrics: counted by workers, told to the organization."""

from typing import Any

import pytest

from eventbus import Context, EventBus, Group, Reject
from handlers.lead.events import EnrichLead
from handlers.notification.events import CreateNotification, NotificationType
from tests.gateway.client import Client, Gateway, running
from tests.gateway.test_problems import assert_problem
from tests.servers import OwnRedis
from tests.waiting import eventually
from tests.working import working

PATH = "/api/metrics"


def group() -> Group:
    group = Group("enriching")

    @group.on(EnrichLead)
    async def enrich(event: EnrichLead, ctx: Context) -> None:
        if event.lead_id == "bad":
            raise Reject("no such lead")

    @group.on(CreateNotification)
    async def notify(event: CreateNotification, ctx: Context) -> None:
        raise Reject(f"what {event.user_id} may know")

    return group


async def fares(caller: Client, processed: int, window: str = "") -> Any:
    async def counted() -> Any:
        answer = await caller.get(PATH + window)
        assert answer.status == 200, answer
        assert answer.body["eventsProcessed"] <= processed
        return answer.body if answer.body["eventsProcessed"] == processed else None

    return await eventually(counted)


async def test_nothing_has_happened(ann: Client) -> None:
    answer = await ann.get(PATH)
    assert answer.status == 200
    since = answer.body.pop("since")
    assert since.endswith(":00Z")
    assert answer.body == {
        "window": "5m",
        "eventsProcessed": 0,
        "successRate": None,
        "averageDurationMs": None,
        "eventsPerMinute": 0.0,
        "retries": 0,
        "activeSessions": 0,
        "recentFailures": [],
    }


async def test_what_has_happened_in_either_window(ann: Client, stranger: Client, bus: EventBus) -> None:
    async with working(bus, group()):
        bad = await bus.publish(EnrichLead(lead_id="bad", organization_id="acme"))
        for _ in range(3):
            await bus.publish(EnrichLead(lead_id="good", organization_id="acme"))
        await bus.publish(EnrichLead(lead_id="good", organization_id="umbrella"))
        for window, minutes in (("5m", 5), ("1h", 60)):
            told = await fares(ann, 4, f"?window={window}")
            assert (told["window"], told["successRate"], told["retries"]) == (window, 0.75, 0)
            assert told["averageDurationMs"] > 0
            assert 4 / (minutes + 1) <= told["eventsPerMinute"] + 0.001
            [failure] = told["recentFailures"]
            assert failure.pop("at").endswith("Z")
            assert failure == {
                "eventId": bad.id,
                "type": "lead.enrich",
                "group": "enriching",
                "error": "Reject: no such lead",
                "attempts": 1,
            }
        other = await fares(stranger, 1)
        assert (other["successRate"], other["recentFailures"]) == (1.0, [])


async def test_active_sessions_are_the_organization_s(admin: Client, ann: Client, stranger: Client) -> None:
    started = [(await admin.post("/api/sessions", {})).body["sessionId"] for _ in range(3)]
    assert (await admin.post(f"/api/sessions/{started[0]}/rollback")).status == 200
    assert (await ann.get(PATH)).body["activeSessions"] == 2
    assert (await stranger.get(PATH)).body["activeSessions"] == 0


async def test_what_is_meant_for_one_user_is_told_to_those_who_run_the_house(
    ann: Client, admin: Client, bus: EventBus
) -> None:
    async with working(bus, group()):
        await bus.publish(
            CreateNotification(
                user_id="bob", organization_id="acme", title="t", message="m", notification_type=NotificationType.INFO
            )
        )
        told = await fares(admin, 1)
        assert [one["error"] for one in told["recentFailures"]] == ["Reject: what bob may know"]
        told = await fares(ann, 1)
        assert (told["successRate"], told["recentFailures"]) == (0.0, [])


@pytest.mark.parametrize("query", ["?window=10m", "?window=", "?window=5m&window=1h"])
async def test_another_window_is_refused(ann: Client, query: str) -> None:
    assert_problem(await ann.get(PATH + query), 422, PATH)


async def test_nobody_is_told_nothing(gateway: Gateway) -> None:
    assert_problem(await gateway.bearer("").get(PATH), 401, PATH)


async def test_without_redis_nobody_knows(own_redis: OwnRedis, database_url: str) -> None:
    redis = own_redis()
    async with EventBus(redis.url, database=database_url) as bus, running(bus) as gateway:
        redis.kill()
        answer = await gateway.caller("ann", "acme").get(PATH)
    assert_problem(answer, 503, PATH)
    assert "Retry-After" in answer.headers
