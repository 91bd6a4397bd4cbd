"""Firing what recurs: once among many workers, and after a time without any by the rule."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from eventbus import Context, EventBus, Group, RetryPolicy, Tick, Worker
from eventbus.contract.codec import envelop
from eventbus.contract.firings import LastFiring
from eventbus.errors import Full, Unavailable
from eventbus.event import Envelope, unix_ms
from eventbus.memory import MemoryTransport
from eventbus.policy import Backoff
from eventbus.roles.recurrence import Recurrence
from tests.waiting import PATIENCE, until

PERIOD = timedelta(seconds=0.1)


class Clock:
    """A group that ticks, and remembers."""

    def __init__(self, period: float = 0.1, cron: str = "", catch_up: float = 3600.0) -> None:
        self.group = Group("clock", retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(0.01)))
        self.heard: list[tuple[datetime, str]] = []
        self.wrong = 0

        often = self.group.cron(cron, catch_up=catch_up) if cron else self.group.every(period, catch_up=catch_up)

        @often
        async def chime(tick: Tick, ctx: Context) -> None:
            self.heard.append((tick.due, ctx.event_id))
            if self.wrong:
                self.wrong -= 1
                raise ValueError("no")

    async def missed(self, bus: EventBus, ago: timedelta) -> datetime:
        """As if it had fired so long ago, and not since. Returns the moment of that firing."""
        [recurring] = self.group.recurring
        now = (await bus.transport.last_firing(recurring.stream, "another")).now
        due = recurring.schedule.latest(now - ago)
        assert due is not None
        firing = envelop(recurring.tick(due=due))._replace(id=recurring.event_id(due))
        assert await bus.transport.fire(firing, recurring.name, due)
        return due


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@asynccontextmanager
async def working(bus: EventBus, *groups: Group, workers: int = 1) -> AsyncIterator[None]:
    all_of_them = [Worker(bus, groups) for _ in range(workers)]
    running = [asyncio.create_task(worker.run()) for worker in all_of_them]
    try:
        yield
    finally:
        for worker in all_of_them:
            await worker.stop()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*running)


async def test_a_worker_of_nothing_else_fires_each_moment_once(bus: EventBus) -> None:
    clock = Clock()
    async with working(bus, clock.group, workers=3):
        await until(lambda: len(clock.heard) >= 4)
    dues = [due for due, _ in clock.heard]
    assert dues == sorted(set(dues))
    assert all((due - datetime(1970, 1, 1, tzinfo=UTC)) % PERIOD == timedelta() for due in dues)
    assert [unix_ms(event_id) / 1000 for _, event_id in clock.heard] == [due.timestamp() for due in dues]


async def test_a_firing_is_retried_like_any_event(bus: EventBus) -> None:
    clock = Clock(period=3600.0)
    clock.wrong = 1
    due = await clock.missed(bus, timedelta())
    async with working(bus, clock.group):
        await until(lambda: len(clock.heard) == 2)
    assert [moment for moment, _ in clock.heard] == [due, due]


async def test_of_what_was_missed_the_last_is_made_up_for(bus: EventBus) -> None:
    clock = Clock(period=100.0)
    old = await clock.missed(bus, timedelta(seconds=750))
    with capture_logs() as logs:
        async with working(bus, clock.group):
            await until(lambda: len(clock.heard) == 2)
    [(first, _), (second, _)] = clock.heard
    now = (await bus.transport.last_firing("tick_clock", "chime")).now
    assert (first, second) == (old, clock.group.recurring[0].schedule.latest(now))
    [skipped] = [line for line in logs if line["event"] == "missed firings are left out"]
    assert skipped["since"] == (old + timedelta(seconds=100)).isoformat()
    assert skipped["before"] == second.isoformat()


async def test_what_is_too_old_is_left_out_and_told_once(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.roles.recurrence.LONGEST_SLEEP", 0.01)
    half_an_hour_ago = (datetime.now(UTC) - timedelta(minutes=30)).minute
    clock = Clock(cron=f"{half_an_hour_ago} * * * *", catch_up=60.0)
    old = await clock.missed(bus, timedelta(hours=3))
    with capture_logs() as logs:
        running = asyncio.create_task(Recurrence(bus.transport, [clock.group]).run())
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])
    assert (await bus.transport.last_firing("tick_clock", "chime")).due == old
    assert [line["event"] for line in logs] == ["missed firings are left out"]


class Troubled(MemoryTransport):
    trouble: Exception | None = None

    async def last_firing(self, stream: str, name: str) -> LastFiring:
        if self.trouble is not None:
            raise self.trouble
        return await super().last_firing(stream, name)

    async def fire(self, firing: Envelope, name: str, due: datetime) -> bool:
        if self.trouble is not None:
            raise self.trouble
        return await super().fire(firing, name, due)


@pytest.mark.parametrize("trouble", [Unavailable("Redis", "no answer"), Full("no memory")], ids=["away", "full"])
async def test_a_server_in_trouble_is_waited_for_and_told_once(
    bus: EventBus, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.roles.recurrence.RETRY_PAUSE", 0.02)
    bus.transport = transport = Troubled()
    clock = Clock()
    transport.trouble = trouble
    with capture_logs() as logs:
        async with working(bus, clock.group):
            await asyncio.sleep(0.2)
            assert clock.heard == []
            transport.trouble = None
            await until(lambda: clock.heard)
    assert [line["reason"] for line in logs if line["event"] == "recurring functions are not fired"] == [str(trouble)]
