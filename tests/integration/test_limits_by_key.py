"""Limits by key through real workers: a backlog of one key, functions that give none, a key that the server refuses."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable

import pytest
import structlog

from eventbus import Backoff, Context, Event, EventBus, Group, InFlight, RateLimit, Reject, RetryPolicy, Worker
from eventbus.consuming import limit_queue
from eventbus.contract.inspection import InLine, Standing
from eventbus.event import Envelope
from eventbus.redis.link import Link
from tests.integration.test_limits_and_pauses import working
from tests.waiting import until


class Parcel(Event, type="parcel.limited"):
    number: int = 0
    organization_id: str = "flood"


@pytest.fixture(params=["memory", "server"])
def url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")


class Depot:
    """How many of each organization have started. Those of `stuck` do not end."""

    def __init__(self, *, stuck: str = "", **settings: object) -> None:
        self.started: Counter[str] = Counter()
        self.group = Group("depot", **settings)  # type: ignore[arg-type]
        never = asyncio.Event()

        @self.group.on(Parcel)
        async def send(event: Parcel, ctx: Context) -> None:
            self.started[event.organization_id] += 1
            if event.organization_id == stuck:
                await never.wait()


def flood(count: int) -> list[Parcel]:
    return [Parcel(number=number) for number in range(count)]


async def test_behind_the_backlog_of_one_key_the_others_are_found(url: str) -> None:
    """Far more than a process has in hand, and none of it may start for a minute."""
    depot = Depot(rate_limit=RateLimit(2, per=60.0, by="organization"), concurrency=3)
    async with working(url, depot.group) as bus:
        for _ in range(3):
            await bus.publish_many(flood(1_000))
        await bus.publish_many([Parcel(organization_id=f"small-{number}") for number in range(20)])
        await until(lambda: len(depot.started) == 21, timeout=50.0)
        assert depot.started["flood"] <= 4


async def test_a_key_whose_places_are_taken_lets_the_others_pass(url: str) -> None:
    depot = Depot(stuck="flood", max_in_flight=[InFlight(1, by="organization")], concurrency=3)
    depot.group.lease = 60.0
    async with EventBus(url) as bus:
        await bus.publish_many(flood(2_000))
        await bus.publish_many([Parcel(organization_id=f"small-{number}") for number in range(20)])
        worker = Worker(bus, [depot.group], grace=0.0)
        running = asyncio.create_task(worker.run(signals=False))
        await until(lambda: len(depot.started) == 21, timeout=50.0)
        assert depot.started["flood"] == 1
        await worker.stop()
        await running


def raising(envelope: Envelope) -> str:
    if envelope.organization == "flood":
        raise LookupError("no such customer")
    return "all"


def rejecting(envelope: Envelope) -> str:
    if envelope.organization == "flood":
        raise Reject("no such customer")
    return "all"


def numbering(envelope: Envelope) -> str:
    return 4711 if envelope.organization == "flood" else "all"  # type: ignore[return-value]


def leaving(envelope: Envelope) -> str:
    if envelope.organization == "flood":
        raise SystemExit(3)
    return "all"


@pytest.mark.parametrize(
    ("by", "attempts", "reason"),
    [
        (raising, 2, "LookupError: no such customer"),
        (rejecting, 1, "Reject: no such customer"),
        (numbering, 2, "TypeError: RateLimit: by=.* gave 4711: a key is a str"),
        (leaving, 2, "SystemExit: 3"),
    ],
)
async def test_a_function_that_gives_no_key_fails_its_event_and_no_other(
    redis_url: str, by: Callable[[Envelope], str], attempts: int, reason: str
) -> None:
    retry = RetryPolicy(attempts=2, backoff=Backoff.fixed(0.01))
    depot = Depot(rate_limit=RateLimit(100, by=by), retry=retry)
    async with working(redis_url, depot.group) as bus:
        await bus.publish(Parcel())
        await bus.publish_many([Parcel(organization_id="small") for _ in range(5)])
        await until(lambda: depot.started["small"] == 5, timeout=30.0)
        while not (letters := await bus.transport.dead_letters("parcel")):
            await asyncio.sleep(0.01)
        await bus.publish(Parcel(organization_id="small"))
        await until(lambda: depot.started["small"] == 6, timeout=30.0)
    assert letters[0].attempts == attempts
    assert re.match(reason, letters[0].error), letters[0].error
    assert depot.started["flood"] == 0


async def test_a_key_that_the_server_refuses_keeps_no_other(
    any_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_queue, "ERROR_PAUSE", 0.05)
    depot = Depot(rate_limit=RateLimit(3, per=0.1, by="organization"))
    raw = Link(any_redis_url, timeout=5, name="test")
    await raw.execute("SET", "eb:{@depot}:0:flood:line", "no line")
    with structlog.testing.capture_logs() as lines:
        async with working(any_redis_url, depot.group) as bus:
            await bus.publish_many(flood(5))
            await bus.publish_many([Parcel(organization_id="small") for _ in range(5)])
            await until(lambda: depot.started["small"] == 5, timeout=30.0)
            assert depot.started["flood"] == 0
            assert await raw.execute("EXISTS", "eb:{@depot}:0:flood:starts") == 0, "nothing was written by halves"
            await raw.execute("DEL", "eb:{@depot}:0:flood:line")
            await until(lambda: depot.started["flood"] == 5, timeout=30.0)
    await raw.close()
    [told] = [line for line in lines if line["event"] == "a limit cannot be asked for"]
    assert told["log_level"] == "error"
    assert "WRONGTYPE" in told["error"]


async def test_it_is_told_for_which_limit_an_event_waits(url: str) -> None:
    depot = Depot(rate_limit=RateLimit(1, per=60.0, by="organization"))
    async with working(url, depot.group) as bus:
        receipts = await bus.publish_many(flood(3))
        while True:
            found = [(await bus.transport.locate(receipt.id)).groups for receipt in receipts]
            if [[each.standing for each in groups] for groups in found[1:]] == [[Standing.RESTING]] * 2:
                break
            await asyncio.sleep(0.01)
    [[done], [first], [second]] = found
    assert done.lines == ()
    assert first.lines == (InLine("at most 1 starts in 60 s by organization", "flood", 0),)
    assert second.lines == (InLine("at most 1 starts in 60 s by organization", "flood", 1),)


async def test_a_worker_that_is_cancelled_leaves_no_gate(url: str) -> None:
    depot = Depot(rate_limit=RateLimit(1, per=60.0))
    async with EventBus(url) as bus:
        await bus.publish_many(flood(3))
        worker = Worker(bus, [depot.group])
        running = asyncio.create_task(worker.run(signals=False))
        await until(lambda: depot.started["flood"] == 1)
        running.cancel()
        await asyncio.wait([running])
        assert not [task for task in asyncio.all_tasks() if "Gate.run" in repr(task)]
