"""How much a user may ask, through all gateways together."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog

from eventbus import EventBus, Full
from gateway.callers.auth import Caller
from gateway.callers.quota import AWAY_PAUSE, Quotas
from gateway.callers.rates import EVERYBODY, Rate, parse
from gateway.settings import GatewaySettings
from tests.gateway.client import Answer, Gateway, running
from tests.gateway.test_problems import assert_problem
from tests.servers import OwnRedis
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually

FIELD = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')


def told(answer: Answer) -> tuple[str, int, int]:
    """Policy, what is left, and seconds, by the RateLimit field."""
    found = FIELD.fullmatch(answer.headers["RateLimit"])
    assert found is not None, answer.headers["RateLimit"]
    return found[1], int(found[2]), int(found[3])


@pytest.fixture
async def limited(bus: EventBus) -> AsyncIterator[Gateway]:
    async with running(bus, rate_limit="5/1m,system=off,admin=7/1m") as gateway:
        yield gateway


async def test_sixty_a_minute_by_default(bus: EventBus) -> None:
    async with running(bus, rate_limit=GatewaySettings().rate_limit) as gateway:
        ann = gateway.caller("ann")
        answers = [await ann.get("/api/tasks") for _ in range(62)]
    assert [answer.status for answer in answers] == [200] * 60 + [429] * 2
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"user";q=60;w=60'}
    assert [told(answer)[1] for answer in answers] == [*range(59, -1, -1), 0, 0]
    assert all(1 <= told(answer)[2] <= 61 for answer in answers)


async def test_what_is_refused_says_when_to_come(limited: Gateway) -> None:
    ann = limited.caller("ann")
    for _ in range(5):
        assert (await ann.post("/api/tasks", {"title": "Call"})).status == 201
    refused = await ann.post("/api/tasks", {"title": "Call"})
    assert_problem(refused, 429, "/api/tasks")
    assert "5 requests in 60 s" in refused.body["detail"]
    assert 50 <= int(refused.headers["Retry-After"]) <= 61
    assert told(refused) == ("user", 0, int(refused.headers["Retry-After"]))


async def test_every_answer_says_what_is_left_problems_too(limited: Gateway) -> None:
    ann = limited.caller("ann")
    answers = [
        await ann.get("/api/tasks"),
        await ann.get("/api/leads/not-an-id"),
        await ann.post("/api/tasks", {"title": 1}),
        await ann.post("/api/funnels", {}),
    ]
    assert [answer.status for answer in answers] == [200, 404, 422, 403]
    assert [told(answer)[1] for answer in answers] == [4, 3, 2, 1]


async def test_each_user_has_his_own(limited: Gateway) -> None:
    callers = [limited.caller("ann", "acme"), limited.caller("bob", "acme"), limited.caller("ann", "umbrella")]
    for caller in callers:
        assert [(await caller.get("/api/tasks")).status for _ in range(6)] == [200] * 5 + [429]


async def test_two_gateways_count_together(bus: EventBus, redis_url: str, database_url: str) -> None:
    async with (
        EventBus(redis_url, database=database_url) as another,
        running(bus, rate_limit="30/1m") as one,
        running(another, rate_limit="30/1m") as two,
    ):
        callers = [one.caller("ann"), two.caller("ann")]
        answers = await asyncio.gather(*(callers[n % 2].get("/api/tasks") for n in range(80)))
        assert Counter(answer.status for answer in answers) == {200: 30, 429: 50}
        left = sorted(told(answer)[1] for answer in answers if answer.status == 200)
        assert left == list(range(30)), "each request knows its own place"


async def test_roles_have_what_is_set_for_them(limited: Gateway) -> None:
    system, admin = limited.caller("sys", "acme", "system"), limited.caller("root", "acme", "admin", "user")
    answers = [await system.get("/api/tasks") for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert not any("RateLimit-Policy" in answer.headers for answer in answers)
    answers = [await admin.get("/api/tasks") for _ in range(8)]
    assert [answer.status for answer in answers] == [200] * 7 + [429]
    assert answers[0].headers["RateLimit-Policy"] == '"admin";q=7;w=60'


def test_of_several_roles_the_most_generous_counts() -> None:
    quotas = Quotas(EventBus("memory://"), parse("5/1m,system=10/1s,admin=300/1m"))

    def rate(*roles: str) -> Rate | None:
        return quotas.rate_of(Caller("ann", "acme", frozenset(roles)))

    assert rate("user") == Rate(EVERYBODY, 5, 60)
    assert rate("admin", "user") == Rate("admin", 300, 60)
    assert rate("admin", "system") == Rate("system", 10, 1)
    assert (
        Quotas(EventBus("memory://"), parse("5/1m,system=off")).rate_of(Caller("a", "b", frozenset({"system"}))) is None
    )


async def test_what_needs_no_token_costs_nothing(limited: Gateway) -> None:
    nobody = limited.bearer("")
    for path in ("/livez", "/openapi.json"):
        answers = [await nobody.get(path) for _ in range(8)]
        assert {answer.status for answer in answers} == {200}
        assert "RateLimit-Policy" not in answers[0].headers
    refused = [await limited.bearer("nonsense").get("/api/tasks") for _ in range(8)]
    assert {answer.status for answer in refused} == {401}


async def test_a_window_slides_on(bus: EventBus) -> None:
    async with running(bus, rate_limit="10/1s") as gateway:
        ann, passed, until = gateway.caller("ann"), [], time.monotonic() + 3.2
        while time.monotonic() < until:
            asked = time.monotonic()
            answer = await ann.get("/api/tasks")
            if answer.status == 200:
                passed.append(asked)
            else:
                assert int(answer.headers["Retry-After"]) in {1, 2}
                await asyncio.sleep(0.01)
    assert 30 <= len(passed) <= 40
    for first, eleventh in zip(passed, passed[10:], strict=False):
        assert eleventh - first > 0.97  # it was counted somewhat after it was asked


@asynccontextmanager
async def counting(bus: EventBus) -> AsyncIterator[list[int]]:
    """How many were wanted by each call of Redis."""
    wanted: list[int] = []
    spend = bus.transport.spend

    async def count(quota: str, limit: object, many: int) -> object:
        wanted.append(many)
        return await spend(quota, limit, many)  # type: ignore[arg-type]

    bus.transport.spend = count  # type: ignore[method-assign, assignment]
    yield wanted
    bus.transport.spend = spend  # type: ignore[method-assign]


async def spent(quotas: Quotas, caller: Caller) -> bool:
    rate = quotas.rate_of(caller)
    assert rate is not None
    return not (quotas.at_once(rate, caller) or await quotas.spend(rate, caller)).refused


ANN = Caller("ann", "acme")


async def test_requests_that_come_together_are_counted_by_one_call(bus: EventBus) -> None:
    quotas = Quotas(bus, parse("50/1m"))
    async with counting(bus) as wanted:
        passed = await asyncio.gather(*(spent(quotas, ANN) for _ in range(64)))
        assert (sum(passed), wanted) == (50, [64])
        assert not await spent(quotas, ANN)
        assert wanted == [64], "who is refused is refused without asking, until there may be more"


async def test_a_fast_user_is_asked_for_in_slices(bus: EventBus) -> None:
    """And there never are more than the limit in a span, though what a slice has is spent without asking."""
    one, two = (Quotas(bus, parse("2000/1s")) for _ in range(2))
    passed: list[tuple[float, float]] = []  # before and after
    async with counting(bus) as wanted, asyncio.timeout(PATIENCE):
        while len(passed) < 5_000:
            for quotas in (one, two):
                now = time.monotonic()
                if await spent(quotas, ANN):
                    passed.append((now, time.monotonic()))
            await asyncio.sleep(0)
    assert len(wanted) < len(passed) / 4
    for (first, _), (_, beyond) in zip(passed, passed[2000:], strict=False):
        assert beyond - first > 0.97


async def test_while_redis_is_away_nobody_is_refused(own_redis: OwnRedis, database_url: str) -> None:
    redis = await asyncio.to_thread(own_redis)
    async with EventBus(redis.url, database=database_url) as bus, running(bus, rate_limit="2/1m") as gateway:
        ann = gateway.caller("ann")
        assert [(await ann.get("/api/tasks")).status for _ in range(3)] == [200, 200, 429]
        bob = gateway.caller("bob")
        await asyncio.to_thread(redis.kill)
        with structlog.testing.capture_logs() as logs:
            answers = [await bob.get("/api/tasks") for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert answers[0].headers["RateLimit-Policy"] == '"user";q=2;w=60'
        assert "RateLimit" not in answers[0].headers, "nobody knows what is left"
        assert len([line for line in logs if line["event"] == "requests are not counted"]) == 1

        await asyncio.to_thread(redis.start)

        async def limited_again() -> bool:
            return (await bob.get("/api/tasks")).status == 429

        await eventually(limited_again)


async def test_a_redis_that_does_not_answer_holds_nobody_up(own_redis: OwnRedis, database_url: str) -> None:
    redis = await asyncio.to_thread(own_redis)
    async with EventBus(redis.url, database=database_url) as bus, running(bus, rate_limit="2/1m") as gateway:
        ann = gateway.caller("ann")
        await asyncio.to_thread(redis.pause)
        try:
            began = Stopwatch()
            assert [(await ann.get("/api/tasks")).status for _ in range(4)] == [200] * 4
            assert began.seconds < AWAY_PAUSE + 1.5, "the first has waited, and the others have not"
        finally:
            await asyncio.to_thread(redis.resume)


async def test_who_goes_away_keeps_nobody_waiting(bus: EventBus) -> None:
    quotas = Quotas(bus, parse("5/1m"))
    tasks = [asyncio.create_task(spent(quotas, ANN)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert [await task for task in tasks[1:]] == [True, True]
    assert [await spent(quotas, ANN) for _ in range(3)] == [True, True, False]


async def test_a_full_redis_refuses_nobody(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_arguments: object) -> object:
        raise Full("Redis has no memory left")

    monkeypatch.setattr(bus.transport, "spend", fail)
    quotas = Quotas(bus, parse("1/1m"))
    assert [await spent(quotas, ANN) for _ in range(3)] == [True] * 3


async def test_a_crowd_of_users_is_not_remembered_for_ever(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.callers.quota.REMEMBERED", 10)
    quotas = Quotas(bus, parse("1/1m"))
    for number in range(30):
        assert await spent(quotas, Caller(f"user-{number}", "acme"))
    assert len(quotas._accounts) == 10
    assert not await spent(quotas, Caller("user-1", "acme")), "Redis remembers"
