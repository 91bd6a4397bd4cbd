"""Limits and pauses through real workers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eventbus import Context, Event, EventBus, Group, InFlight, RateLimit, Worker
from tests.stopwatch import Stopwatch
from tests.waiting import until


class Mail(Event, type="mail.requested"):
    number: int
    organization_id: str = "org-1"


class Log:
    """What handlers did: when each started, and how many ran at a time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.starts: list[tuple[float, str, int]] = []
        self.attempts: set[int] = set()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    def register(self, group: Group) -> None:
        @group.on(Mail)
        async def send(event: Mail, ctx: Context) -> None:
            self.starts.append((time.monotonic(), event.organization_id, event.number))
            self.attempts.add(ctx.attempt)
            for key in ("", event.organization_id):
                self.running[key] += 1
                self.most[key] = max(self.most[key], self.running[key])
            await asyncio.sleep(self.seconds)
            for key in ("", event.organization_id):
                self.running[key] -= 1


@asynccontextmanager
async def working(url: str, *groups: Group) -> AsyncIterator[EventBus]:
    """Each group in a worker of its own: of the same name, they are processes of one group."""
    async with EventBus(url) as bus:
        workers = [Worker(bus, [group]) for group in groups]
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield bus
        finally:
            for worker in workers:
                await worker.stop()
            await asyncio.gather(*tasks)


@pytest.fixture(params=["memory", "server"])
def url(request: pytest.FixtureRequest) -> str:
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")


def emails(log: Log, **settings: object) -> Group:
    group = Group("emails", **settings)  # type: ignore[arg-type]
    log.register(group)
    return group


async def test_a_rate_holds_across_workers(any_redis_url: str) -> None:
    log = Log()
    groups = [emails(log, rate_limit=RateLimit(20, per=0.5), concurrency=30) for _ in range(3)]
    async with working(any_redis_url, *groups) as bus:
        with Stopwatch() as watch:
            await bus.publish_many([Mail(number=number) for number in range(70)])
            await until(lambda: len(log.starts) == 70)
    times = sorted(start for start, *_ in log.starts)
    late = watch.kept_waiting  # by so much a start may be later than it was allowed
    assert times[-1] - times[0] >= 1.4 - late, "70 at 20 in half a second"
    assert times[-1] - times[0] <= 4.0 + late
    assert all(times[i + 20] - times[i] > 0.3 - late for i in range(len(times) - 20))
    assert log.attempts == {1}


async def test_an_organization_that_floods_does_not_hold_up_another(url: str) -> None:
    log = Log()
    async with working(url, emails(log, rate_limit=RateLimit(10, per=1.0, by="organization"))) as bus:
        await bus.publish_many([Mail(number=number, organization_id="flood") for number in range(100)])
        await until(lambda: len(log.starts) >= 10)
        await bus.publish(Mail(number=1000, organization_id="small"))
        await until(lambda: any(number == 1000 for *_, number in log.starts))
        assert len(log.starts) < 60, "it has overtaken what the flood waits for"
        await until(lambda: len(log.starts) >= 30)
    assert log.attempts == {1}, "to be put off is no failure"


async def test_so_many_run_at_a_time_across_workers(any_redis_url: str) -> None:
    log = Log(seconds=0.05)
    groups = [emails(log, max_in_flight=4, concurrency=10) for _ in range(3)]
    async with working(any_redis_url, *groups) as bus:
        await bus.publish_many([Mail(number=number) for number in range(40)])
        await until(lambda: len(log.starts) == 40)
    assert log.most[""] == 4


async def test_so_many_run_at_a_time_for_each_key(url: str) -> None:
    log = Log(seconds=0.05)
    group = emails(log, max_in_flight=[InFlight(2, by="organization")], concurrency=10)
    async with working(url, group) as bus:
        await bus.publish_many([Mail(number=n, organization_id=f"org-{n % 3}") for n in range(18)])
        await until(lambda: len(log.starts) == 18)
    assert max(log.most[f"org-{n}"] for n in range(3)) <= 2
    assert log.most[""] >= 4


async def test_a_paused_group_takes_nothing_and_gives_back_what_waits(url: str) -> None:
    log = Log(seconds=0.05)
    async with working(url, emails(log, concurrency=2)) as bus:
        await bus.publish_many([Mail(number=number) for number in range(100)])
        await until(lambda: len(log.starts) >= 4)
        assert await bus.groups.pause("emails", reason="the provider is down")
        assert not await bus.groups.pause("emails")
        assert (await bus.groups.paused())["emails"].reason == "the provider is down"
        await asyncio.sleep(1.0)  # as long as it may take
        started = len(log.starts)
        await asyncio.sleep(0.5)
        assert len(log.starts) == started
        assert await bus.groups.resume("emails")
        assert not await bus.groups.resume("emails")
        await until(lambda: len(log.starts) == 100)
    assert log.attempts == {1}


async def test_a_worker_that_starts_finds_its_group_paused(any_redis_url: str) -> None:
    log = Log()
    async with EventBus(any_redis_url) as bus:
        await bus.groups.pause("emails")
        await bus.publish(Mail(number=1))
        async with working(any_redis_url, emails(log)):
            await asyncio.sleep(0.3)
            assert log.starts == []
            await bus.groups.resume("emails")
            await until(lambda: len(log.starts) == 1)
