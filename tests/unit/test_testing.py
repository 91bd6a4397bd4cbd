"""The bus for tests: the same outcomes as in production, and time as the test says."""

import asyncio

import pytest

from eventbus import (
    Backoff,
    Batch,
    ConfigurationError,
    Context,
    Event,
    Group,
    RateLimit,
    Reject,
    RetryLater,
    RetryPolicy,
)
from eventbus.contract.delivery import Release
from eventbus.handling.middleware import CallNext
from eventbus.operating import control
from eventbus.testing import MemoryBus, StillRunning
from tests.stopwatch import Stopwatch

YEAR = 365 * 86_400.0


class Rung(Event, type="chime.rung"):
    number: int = 0


class Echoed(Event, type="chime.echoed"):
    number: int = 0


@pytest.fixture
def bell() -> Group:
    """Fails twice on odd numbers; echoes even ones after a minute."""
    bell = Group("bell", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)))

    @bell.on(Rung)
    async def ring(event: Rung, ctx: Context) -> None:
        if event.number % 2 and ctx.attempt < 3:
            raise ValueError("cracked")
        if not event.number % 2:
            await ctx.publish(Echoed(number=event.number), key="k", delay=60.0, priority=2)

    @bell.on(Echoed)
    async def hear(event: Echoed, ctx: Context) -> None:
        return

    return bell


async def test_drain_runs_all_that_is_due_and_all_that_comes_due(bell: Group) -> None:
    bus = MemoryBus([bell])
    await bus.publish(Rung(number=1))
    await bus.publish(Rung(number=2), delay=YEAR)
    assert bus.completed(Rung) == []
    began = Stopwatch()
    await bus.drain()
    assert began.seconds < 5
    assert bus.now == YEAR + 60.0
    assert bus.completed(Rung) == [Rung(number=1), Rung(number=2)]
    assert bus.published(Echoed) == bus.completed(Echoed, group=bell) == [Echoed(number=2)]
    [item] = bus.outgoing(Echoed)
    assert (item.envelope.subject, item.envelope.priority, item.delay) == ("k", 2, 60.0)
    assert item.envelope.causation_id == bus.outgoing(Rung)[1].envelope.id
    assert bus.dead() == []


async def test_each_attempt_has_its_time(bell: Group) -> None:
    attempts: list[tuple[float, int]] = []
    bus = MemoryBus([bell])
    never = Group("never", retry=RetryPolicy(attempts=4, backoff=Backoff.exponential(2.0)))

    @never.on(Rung)
    async def fail(event: Rung, ctx: Context) -> None:
        attempts.append((bus.now, ctx.attempt))
        raise RetryLater(100.0) if ctx.attempt == 3 else ValueError("no")

    bus.add(never)
    await bus.publish(Rung(number=1))
    await bus.drain()
    assert attempts == [(0.0, 1), (2.0, 2), (6.0, 3), (106.0, 4)]
    [letter] = bus.dead(Rung, group=never)
    assert (letter.attempts, letter.error, letter.group) == (4, "ValueError: no", "never")
    assert bus.dead(Echoed) == bus.dead(group=bell) == []
    assert bus.completed(Rung) == bus.completed(Rung, group=bell) == [Rung(number=1)]


async def test_advance_runs_what_comes_due_meanwhile_and_nothing_else(bell: Group) -> None:
    bus = MemoryBus([bell])
    await bus.publish(Rung(number=1))
    await bus.publish(Rung(number=2), delay=5.0)
    await bus.advance(0)
    assert bus.completed(Rung) == []
    await bus.advance(5.9)
    assert (bus.now, bus.completed(Rung)) == (5.9, [Rung(number=2)])
    await bus.advance(0.1)
    assert bus.completed(Rung) == [Rung(number=2), Rung(number=1)]
    await bus.advance(58.9)
    assert bus.completed(Echoed) == []
    await bus.advance(0.1)
    assert bus.completed(Echoed) == [Echoed(number=2)]


async def test_what_is_rejected_or_fits_no_type_is_dead(bell: Group) -> None:
    strict = Group("strict")

    @strict.on(Rung)
    async def refuse(event: Rung, ctx: Context) -> None:
        raise Reject("too loud")

    bus = MemoryBus([strict])
    await bus.publish(Rung())
    await bus.drain()
    assert [(letter.attempts, letter.error) for letter in bus.dead()] == [(1, "Reject: too loud")]


async def test_a_crowd_in_a_narrow_group_takes_no_real_time(bell: Group) -> None:
    narrow = Group("narrow", concurrency=1, retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(60.0)))

    @narrow.on(Rung)
    async def stumble(event: Rung, ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("no")

    bus = MemoryBus([narrow])
    await bus.publish_many([Rung(number=number) for number in range(100)])
    began = Stopwatch()
    await bus.drain()
    assert len(bus.completed(Rung)) == 100
    assert began.seconds < 5


async def test_runs_are_alike(bell: Group) -> None:
    async def run() -> list[Rung]:
        bus = MemoryBus([bell])
        await bus.publish_many([Rung(number=number) for number in range(50)])
        await bus.drain()
        return bus.completed(Rung)

    assert await run() == await run()


async def test_nothing_runs_by_itself_and_nothing_is_left_behind(bell: Group) -> None:
    before = asyncio.all_tasks()
    bus = MemoryBus([bell])
    await bus.publish(Rung(number=2), delay=0.001)
    await asyncio.sleep(0.02)
    assert bus.completed(Rung) == []
    await bus.drain()
    assert asyncio.all_tasks() == before


async def test_a_handler_that_hangs_is_named() -> None:
    stuck = Group("stuck", timeout=None)

    @stuck.on(Rung)
    async def wait(event: Rung, ctx: Context) -> None:
        await asyncio.Event().wait()

    bus = MemoryBus([stuck], patience=0.05)
    await bus.publish(Rung())
    with pytest.raises(StillRunning, match=r"0\.05 s: stuck"):
        await bus.drain()


async def test_a_handler_that_hangs_runs_into_its_timeout_as_fast_as_it_should() -> None:
    slow = Group("slow", timeout=60.0, retry=RetryPolicy(attempts=3, backoff=Backoff.fixed(5.0)))

    @slow.on(Rung)
    async def wait(event: Rung, ctx: Context) -> None:
        if event.number != ctx.attempt:
            await asyncio.sleep(3600)

    bus = MemoryBus([slow], patience=0.05)
    await bus.publish_many([Rung(number=2), Rung(number=4)])
    with pytest.raises(StillRunning, match="slow"):
        await bus.advance(59.9)
    assert (bus.now, bus.finished[0].outcome) == (0.0, Release())
    await bus.drain()
    assert bus.now == 60.0 + 5.0 + 60.0 + 5.0 + 60.0
    assert bus.completed(Rung) == [Rung(number=2)]
    assert [(letter.attempts, letter.error) for letter in bus.dead()] == [(3, "TimeoutError")]


async def test_a_handler_s_own_timeout_counts_and_not_its_group_s() -> None:
    slow = Group("slow", timeout=None, retry=RetryPolicy(attempts=1))

    @slow.on(Rung, timeout=7.0)
    async def wait(event: Rung, ctx: Context) -> None:
        await asyncio.sleep(3600)

    bus = MemoryBus([slow], patience=0.05)
    await bus.publish(Rung())
    await bus.drain()
    assert bus.now == 7.0
    assert [letter.error for letter in bus.dead()] == ["TimeoutError"]


async def test_batches_are_drained_too() -> None:
    pairs = Group("pairs", concurrency=1, retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(60.0)))
    sizes: list[int] = []

    @pairs.on_batch(Rung, max_size=2, max_wait=0.05)
    async def note(batch: Batch[Rung]) -> None:
        sizes.append(len(batch))
        for item in batch:
            if item.event.number == 2 and item.ctx.attempt == 1:
                item.fail(ValueError("not yet"))

    bus = MemoryBus([pairs])
    await bus.publish_many([Rung(number=number) for number in range(3)])
    await bus.drain()
    assert (sizes, bus.now) == ([2, 1, 1], 60.0)
    assert len(bus.completed(Rung)) == 3


@pytest.mark.parametrize("by", [None, "subject"])
async def test_rates_hold_on_the_bus_clock(by: str | None) -> None:
    starts: list[float] = []
    limited = Group("limited", rate_limit=RateLimit(2, per=60.0, by=by), retry=RetryPolicy(attempts=1))

    @limited.on(Rung, Echoed)
    async def note(event: Event, ctx: Context) -> None:
        starts.append(bus.now)

    bus = MemoryBus([limited])
    await bus.publish_many([Rung(number=number) for number in range(4)], key="k")
    await bus.publish(Echoed(), key="k", delay=30.0)
    await bus.advance(59.9)
    assert starts == [0.0, 0.0]
    await bus.drain()
    assert len(starts) == 5
    for first, third in zip(starts, starts[2:], strict=False):
        assert third - first >= 60.0
    assert bus.now == starts[-1] < 200.0


async def test_bounds_on_what_runs_hold() -> None:
    running: list[int] = [0, 0]
    bounded = Group("bounded", max_in_flight=2)

    @bounded.on(Rung)
    async def count(event: Event, ctx: Context) -> None:
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.001)
        running[0] -= 1

    bus = MemoryBus([bounded])
    await bus.publish_many([Rung(number=number) for number in range(20)])
    await bus.drain()
    assert (running, len(bus.completed(Rung)), bus.now) == ([0, 2], 20, 0.0)


async def test_a_paused_group_does_not_run(bell: Group) -> None:
    bus = MemoryBus([bell])
    await control.pause(bus.transport, "bell")
    await bus.publish(Rung(number=1))
    await bus.drain()
    assert bus.finished == []
    await control.resume(bus.transport, "bell")
    await bus.drain()
    assert bus.completed(Rung) == [Rung(number=1)]


async def test_middleware_and_listeners_are_as_in_production(bell: Group) -> None:
    seen: list[str] = []

    async def middle(event: Event, ctx: Context, call_next: CallNext) -> None:
        seen.append(f"before {ctx.attempt}")
        await call_next(event, ctx)

    bus = MemoryBus([bell], middleware=[middle], listeners=[lambda done: seen.append(type(done.outcome).__name__)])
    await bus.publish(Rung(number=1))
    await bus.drain()
    assert seen == ["before 1", "Retry", "before 2", "Retry", "before 3", "Ack"]
    assert [type(finished.outcome).__name__ for finished in bus.finished] == ["Retry", "Retry", "Ack"]


async def test_events_without_end_are_stopped() -> None:
    endless = Group("endless")

    @endless.on(Rung)
    async def again(event: Rung, ctx: Context) -> None:
        await ctx.publish(Rung(number=event.number + 1), delay=60.0)

    bus = MemoryBus([endless], limit=20)
    await bus.publish(Rung())
    with pytest.raises(StillRunning, match="20 executions"):
        await bus.drain()
    await bus.advance(600.0)
    assert len(bus.completed(Rung)) >= 30


async def test_what_cannot_work_says_so(bell: Group) -> None:
    transacting = Group("transacting", retry=RetryPolicy(attempts=1))

    @transacting.on(Rung)
    async def commit(event: Rung, ctx: Context) -> None:
        async with ctx.transaction():
            raise AssertionError("there is none")

    bus = MemoryBus([transacting])
    await bus.publish(Rung())
    await bus.drain()
    assert "database='postgresql" in bus.dead()[0].error
    with pytest.raises(ConfigurationError, match="share a name: bell"):
        MemoryBus([bell, Group("bell")])
    with pytest.raises(ConfigurationError, match="no groups"):
        await MemoryBus().drain()
    with pytest.raises(ValueError, match="goes forward"):
        await bus.advance(-1)
