"""The loops of a group, on the memory transport, and on one that fails when it is told to."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from eventbus.bus import EventBus
from eventbus.consuming.consumer import Consumer
from eventbus.consuming.executor import Executor
from eventbus.consuming.suspects import Isolation
from eventbus.context import Context
from eventbus.contract.delivery import Dead, Delivery, Reclaimed, Refusal, Settlement, Subscription
from eventbus.contract.limits import RateLimit
from eventbus.errors import Full, Unavailable
from eventbus.event import Event
from eventbus.group import Group
from eventbus.handling import verdict
from eventbus.memory import MemoryTransport
from eventbus.policy import Backoff, RetryPolicy
from tests.samples import consumer as subscription_of
from tests.samples import receive, reclaim
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually, until

FAST = RetryPolicy(attempts=3, backoff=Backoff.fixed(0.01))


class Rung(Event, type="bell.rung"):
    number: int = 0


class Knocked(Event, type="door.knocked"):
    number: int = 0


class Waved(Event, type="window.waved"):
    number: int = 0


class Troubled(MemoryTransport):
    """Raises `trouble` from the named verbs while it is set, and counts what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: dict[str, Exception] = {}
        self.settled: list[int] = []
        self.credits: list[int] = []

    def _meet(self, verb: str) -> None:
        if verb in self.trouble:
            raise self.trouble[verb]

    async def read(self, subscription: Subscription, credit: int, wait: float) -> list[Delivery]:
        self._meet("read")
        self.credits.append(credit)
        return await super().read(subscription, credit, wait)

    async def reclaim(self, subscription: Subscription, credit: int, *, suspect: bool = False) -> Reclaimed:
        self._meet("reclaim")
        return await super().reclaim(subscription, credit, suspect=suspect)

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self._meet("renew")
        return await super().renew(deliveries)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        self._meet("settle")
        self.settled.append(len(settlements))
        refused = [s for s in settlements if isinstance(s.outcome, Dead) and "bury" in self.trouble]
        await super().settle([s for s in settlements if s not in refused])
        return [Refusal(settlement, self.trouble["bury"]) for settlement in refused]


class Bench:
    """A bus on a troubled transport, and consumers of it."""

    def __init__(self) -> None:
        self.transport = Troubled()
        self.bus = EventBus("memory://")
        self.bus.transport = self.transport
        self.isolation = Isolation()

    @asynccontextmanager
    async def consuming(self, group: Group, *, grace: float = 5.0, name: str = "ann") -> AsyncIterator[Consumer]:
        consumer = Consumer(self.transport, group, Executor(group, self.bus), name, self.isolation)
        deadline = float("inf")
        running = asyncio.create_task(consumer.run(lambda: min(grace, deadline - time.monotonic())))
        try:
            yield consumer
        finally:
            deadline = time.monotonic() + grace
            consumer.stop()
            async with asyncio.timeout(PATIENCE):
                await running

    async def ring(self, count: int, start: int = 0) -> None:
        await self.bus.publish_many([Rung(number=number) for number in range(start, start + count)])

    async def left(self) -> list[Delivery]:
        """What another consumer may have at once."""
        found = (await self.transport.reclaim(subscription_of("heir", group="ears", stream="bell"), 1000)).deliveries
        return found + await self.transport.read(subscription_of("heir", group="ears", stream="bell"), 1000, 0.01)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)  # a stop waits for reads to end
    return Bench()


class Ears:
    """A group of handlers that remember what they heard, and do what they are told."""

    def __init__(self, act: Callable[[Event, Context], object] | None = None, **options: object) -> None:
        self.heard: list[int] = []
        self.attempts: list[int] = []
        self.running = self.peak = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.act = act
        fields: dict[str, object] = {"retry": FAST, "lease": 0.3, **options}
        self.group = Group("ears", **fields)  # type: ignore[arg-type]
        self.group.on(Rung)(self.hear)

    async def hear(self, event: Rung, ctx: Context) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            self.attempts.append(ctx.attempt)
            if self.act is not None:
                self.act(event, ctx)
            await asyncio.sleep(0)
            await self.go_on.wait()
            self.heard.append(event.number)
        finally:
            self.running -= 1


def failing(times: int, error: Exception | None = None) -> Callable[[Event, Context], None]:
    """Fails each event on its first attempts."""

    def act(event: Event, ctx: Context) -> None:
        if ctx.attempt <= times:
            raise error or ValueError("not yet")

    return act


# Running --------------------------------------------------------------------------------------------------------------


async def test_a_read_that_an_interruption_missed_is_interrupted_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way to the server, which had nothing to interrupt yet: a stop must not wait for its end."""
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 10.0)
    interrupt, missed = bench.transport.interrupt, 0

    async def miss_twice(subscriptions: Sequence[Subscription]) -> None:
        nonlocal missed
        missed += 1
        if missed > 2:
            await interrupt(subscriptions)

    monkeypatch.setattr(bench.transport, "interrupt", miss_twice)
    ears = Ears()
    async with bench.consuming(ears.group):
        await bench.ring(1)
        await until(lambda: ears.heard == [0])
        began = Stopwatch()
    assert began.seconds < 5
    assert missed > 2


async def test_quick_handlers_are_read_ahead_for_and_slow_ones_are_not(bench: Bench) -> None:
    """A handler that waits must have nobody waiting behind it whom another process could run."""
    group = Group("ears", concurrency=5, retry=FAST, lease=2.0)
    heard, slow = 0, asyncio.Event()

    @group.on(Rung)
    async def hear(event: Rung, ctx: Context) -> None:
        nonlocal heard
        heard += 1
        if event.number >= 2_000:
            await slow.wait()

    await bench.ring(2_000)
    async with bench.consuming(group):
        await until(lambda: heard == 2_000)
        assert max(bench.transport.credits) > 5
        assert max(bench.transport.credits) <= 10
        await asyncio.sleep(0.3)  # the pace of before is forgotten
        bench.transport.credits.clear()
        await bench.ring(20, start=2_000)
        await until(lambda: heard == 2_005)
        await asyncio.sleep(0.05)
        assert len(await bench.transport.read(subscription_of("bob", group="ears", stream="bell"), 100, 0.01)) >= 14
        slow.set()


async def test_events_are_handled_and_done(bench: Bench) -> None:
    ears = Ears()
    async with bench.consuming(ears.group):
        await bench.ring(100)
        await until(lambda: len(ears.heard) == 100)
    assert sorted(ears.heard) == list(range(100))
    assert await bench.left() == []


async def test_concurrency_is_reached_and_never_exceeded(bench: Bench) -> None:
    ears = Ears(concurrency=3)
    ears.go_on.clear()
    async with bench.consuming(ears.group):
        await bench.ring(20)
        await until(lambda: ears.running == 3)
        await asyncio.sleep(0.05)
        assert ears.running == 3
        assert max(bench.transport.credits) <= 3
        ears.go_on.set()
        await until(lambda: len(ears.heard) == 20)
    assert ears.peak == 3


async def test_concurrency_is_not_exceeded_by_retries_either(bench: Bench) -> None:
    ears = Ears(failing(2), concurrency=2)
    async with bench.consuming(ears.group):
        await bench.ring(30)
        await until(lambda: len(ears.heard) == 30)
    assert ears.peak == 2


async def test_a_group_reads_all_of_its_streams(bench: Bench) -> None:
    ears = Ears(concurrency=1)
    heard: list[str] = []

    async def answer(event: Event, ctx: Context) -> None:
        heard.append(f"{event.event_type} {event.model_dump()['number']}")

    ears.group.on(Knocked, Waved)(answer)
    async with bench.consuming(ears.group):
        await bench.bus.publish_many([Knocked(number=1), Rung(number=2), Waved(number=3), Knocked(number=4)])
        await until(lambda: len(heard) == 3 and ears.heard == [2])
    assert sorted(heard) == ["door.knocked 1", "door.knocked 4", "window.waved 3"]


async def test_what_a_busy_group_has_read_ahead_is_bounded(bench: Bench) -> None:
    ears = Ears(concurrency=2)
    ears.go_on.clear()
    async with bench.consuming(ears.group):
        await bench.ring(100)
        await until(lambda: ears.running == 2)
        await asyncio.sleep(0.05)
        assert len(await bench.left()) >= 100 - 2 - 2
        ears.go_on.set()


# Failing --------------------------------------------------------------------------------------------------------------


async def test_a_failing_event_is_retried_and_holds_up_no_other(bench: Bench) -> None:
    def act(event: Event, ctx: Context) -> None:
        if isinstance(event, Rung) and event.number == 0:
            raise ValueError

    ears = Ears(act, concurrency=1)
    async with bench.consuming(ears.group):
        await bench.ring(10)
        await until(lambda: len(ears.heard) == 9)
        [letter] = await eventually(lambda: bench.transport.dead_letters("bell"))
    assert letter.attempts == 3
    assert sorted(ears.attempts) == [1] * 10 + [2, 3]


async def test_retries_are_not_starved_by_a_flood_of_new_events(bench: Bench) -> None:
    """While every slot could be filled with new events for ever, retries get their share."""

    def act(event: Event, ctx: Context) -> None:
        if isinstance(event, Rung) and event.number == 0 and ctx.attempt < 3:
            raise ValueError

    ears = Ears(act, concurrency=1)
    answered: list[Event] = []

    async def answer(event: Event, ctx: Context) -> None:
        await asyncio.sleep(0.002)
        answered.append(event)

    ears.group.on(Knocked, Waved)(answer)
    await bench.ring(1)
    for _ in range(30):
        await bench.bus.publish_many([Knocked(), Waved()] * 100)
    async with bench.consuming(ears.group, grace=0.1):
        await until(lambda: ears.heard == [0])
        assert len(answered) < 6_000


async def test_a_server_that_is_away_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "UNAVAILABLE_SNOOZE", 0.01)
    met: list[int] = []

    def act(event: Event, ctx: Context) -> None:
        met.append(ctx.attempt)
        if len(met) < 10:
            raise Unavailable("PostgreSQL", "gone")

    ears = Ears(act)
    async with bench.consuming(ears.group):
        await bench.ring(1)
        await until(lambda: ears.heard == [0])
    assert set(met) == {1}


@pytest.mark.parametrize("verb", ["read", "reclaim", "settle", "renew"])
@pytest.mark.parametrize("trouble", [Unavailable("Redis", "gone"), RuntimeError("a bug")])
async def test_no_trouble_of_the_transport_stops_the_loops(bench: Bench, verb: str, trouble: Exception) -> None:
    ears = Ears(failing(1))
    async with bench.consuming(ears.group):
        bench.transport.trouble[verb] = trouble
        await bench.ring(5)
        await asyncio.sleep(0.2)
        bench.transport.trouble.clear()
        await until(lambda: sorted(ears.heard) == [0, 1, 2, 3, 4])
    assert await bench.left() == []


async def test_what_was_acked_beside_what_cannot_be_kept_is_not_sent_again_and_again(bench: Bench) -> None:
    """A full server takes acks and no dead letters: for as long as that lasts, the queue of outcomes must not grow."""

    def act(event: Event, ctx: Context) -> None:
        if isinstance(event, Rung) and event.number == 0:
            raise ValueError

    ears = Ears(act, retry=RetryPolicy(attempts=1))
    async with bench.consuming(ears.group):
        bench.transport.trouble["bury"] = Full("Redis is full")
        await bench.ring(200)
        await until(lambda: len(ears.heard) == 199)
        tries = len(bench.transport.settled) + 2
        await until(lambda: len(bench.transport.settled) > tries)
        assert bench.transport.settled[-1] == 1
        bench.transport.trouble.clear()
        await eventually(lambda: bench.transport.dead_letters("bell"))


async def test_outcomes_that_cannot_be_kept_stop_the_reading_some_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a full server would be emptied into this process, event by event that fails."""
    monkeypatch.setattr("eventbus.consuming.settler.UNSETTLED_LIMIT", 50)
    ears = Ears(failing(9), retry=RetryPolicy(attempts=1), concurrency=10)
    async with bench.consuming(ears.group):
        bench.transport.trouble["bury"] = Full("Redis is full")
        await bench.ring(300)
        await until(lambda: len(ears.attempts) >= 50)
        await asyncio.sleep(0.3)
        assert len(ears.attempts) < 100
        bench.transport.trouble.clear()
        await until(lambda: len(ears.attempts) == 300)


# Leases ---------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_outlives_its_lease_is_not_run_twice(bench: Bench) -> None:
    ears = Ears()
    ears.go_on.clear()
    async with bench.consuming(ears.group), bench.consuming(ears.group, name="bob"):
        await bench.ring(3)
        await until(lambda: ears.running == 3)
        await asyncio.sleep(1.0)
        ears.go_on.set()
        await until(lambda: len(ears.heard) == 3)
    assert ears.attempts == [1, 1, 1]


async def test_a_handler_that_blocks_the_loop_past_its_lease_is_not_run_twice_here(bench: Bench) -> None:
    ears = Ears(lambda event, ctx: time.sleep(0.4))
    async with bench.consuming(ears.group):
        await bench.ring(2)
        await until(lambda: len(ears.heard) == 2)
        await asyncio.sleep(0.5)
    assert ears.attempts == [1, 1]
    assert await bench.left() == []


async def test_a_blocked_loop_costs_nobody_in_it_a_lease(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for lost leases wakes up before whoever renews: neither had a turn meanwhile."""
    monkeypatch.setattr("eventbus.consuming.consumer.RECLAIM_INTERVAL", 0.02)
    ears = Ears(concurrency=4)
    ears.go_on.clear()
    async with bench.consuming(ears.group), bench.consuming(ears.group, name="bob"):
        await bench.ring(4)
        await until(lambda: ears.running == 4)
        for _ in range(3):
            time.sleep(ears.group.lease * 1.5)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(ears.group.lease / 2)
        ears.go_on.set()
        await until(lambda: len(ears.heard) >= 4)
    assert ears.attempts == [1] * 4
    assert ears.peak == 4


async def test_what_waits_for_a_limit_and_is_another_s_by_now_does_not_begin_here(bench: Bench) -> None:
    ears = Ears(rate_limit=RateLimit(1, per=3600.0))
    heir = subscription_of("heir", group="ears", stream="bell", lease=0.3)
    async with bench.consuming(ears.group) as ann:
        await bench.ring(2)
        await until(lambda: ears.heard == [0] and len(ann._held) == 1)
        [waiting] = ann._held
        with capture_logs() as logs:
            for log in bench.transport._logs.values():
                for pending in log.groups["ears"].pending.values():
                    pending.owner = "dead"  # and so its lease ends: ann was cut off
            assert [each.entry_id for each in await reclaim(bench.transport, heir)] == [waiting.entry_id]
            await until(lambda: not ann._held)
        assert ann._gate is not None
        assert ann._gate.clear() == []
    [line] = [line for line in logs if line["event"] == "lease lost"]
    assert (line["group"], line["event_id"]) == ("ears", waiting.fields[b"id"].decode())
    assert "not begun here" in line["consequence"]


async def test_what_a_dead_worker_held_is_run_again(bench: Bench) -> None:
    ears = Ears()
    await bench.ring(3)
    await receive(bench.transport, subscription_of("died", group="ears", stream="bell"), 3)
    started = Stopwatch()
    async with bench.consuming(ears.group):
        await until(lambda: len(ears.heard) == 3)
        assert started.seconds < ears.group.lease + 1.0


async def test_a_suspect_runs_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.RECLAIM_INTERVAL", 0.02)
    beside: list[int] = []

    def act(event: Event, ctx: Context) -> None:
        if isinstance(event, Rung) and event.number == 0:
            beside.append(ears.running)

    ears = Ears(act, lease=0.1, concurrency=2)
    await bench.ring(1)
    victim = subscription_of("first", group="ears", stream="bell", lease=0.1)
    await receive(bench.transport, victim)
    suspected = await reclaim(bench.transport, victim._replace(consumer="second"))
    await bench.ring(30, start=1)
    ears.go_on.clear()
    async with bench.consuming(ears.group), bench.consuming(other_group(), name="ann"):
        async with asyncio.timeout(PATIENCE):
            while ears.running < 2:
                await bench.transport.renew(suspected)  # its second holder still lives
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert beside == []
        ears.go_on.set()
        await until(lambda: len(ears.heard) == 31)
    assert beside == [1]


def other_group() -> Group:
    group = Group("neighbours", lease=0.3)

    async def hear(event: Rung, ctx: Context) -> None:
        return

    group.on(Rung)(hear)
    return group


async def test_a_suspect_that_runs_lets_no_read_take_everything(bench: Bench) -> None:
    ears = Ears(lease=0.1, concurrency=1)
    await bench.ring(1)
    victim = subscription_of("first", group="ears", stream="bell", lease=0.1)
    await receive(bench.transport, victim)
    await reclaim(bench.transport, victim._replace(consumer="second"))
    ears.go_on.clear()
    async with bench.consuming(ears.group):
        await until(lambda: ears.running == 1)
        await bench.ring(50, start=1)
        await asyncio.sleep(0.3)  # longer than a read waits
        assert len(await bench.left()) >= 48
        ears.go_on.set()


# The end --------------------------------------------------------------------------------------------------------------


async def test_a_stop_lets_running_handlers_finish(bench: Bench) -> None:
    ears = Ears(concurrency=2)
    ears.go_on.clear()
    async with bench.consuming(ears.group) as consumer:
        await bench.ring(2)
        await until(lambda: ears.running == 2)
        consumer.stop()
        asyncio.get_running_loop().call_later(0.2, ears.go_on.set)
    assert sorted(ears.heard) == [0, 1]
    assert await bench.left() == []


async def test_a_stop_gives_back_at_once_what_was_read_and_not_started(bench: Bench) -> None:
    """faststream#2462: a shutdown threw away what had been fetched and not begun."""
    ears = Ears(concurrency=1)

    async def answer(event: Knocked, ctx: Context) -> None:
        await ears.hear(Rung(number=-1), ctx)

    ears.group.on(Knocked)(answer)
    ears.go_on.clear()
    async with bench.consuming(ears.group) as consumer:
        await asyncio.sleep(0.02)  # both streams are being read, with the same free slot in mind
        await bench.bus.publish_many([Rung(), Knocked()])
        await until(lambda: ears.running == 1)
        consumer.stop()
        await asyncio.sleep(0.05)
        found = await bench.left()
        knocks = await bench.transport.reclaim(subscription_of("heir", group="ears", stream="door"), 10)
        [delivery] = found + knocks.deliveries
        assert (delivery.failures, delivery.crashes) == (0, 0)
        ears.go_on.set()
    assert len(ears.heard) == 1


async def test_a_stop_gives_back_what_does_not_finish_in_time(bench: Bench) -> None:
    ears = Ears()
    ears.go_on.clear()
    async with bench.consuming(ears.group, grace=0.1):
        await bench.ring(3)
        await until(lambda: ears.running == 3)
    assert ears.running == 0
    found = await bench.left()
    assert [(delivery.failures, delivery.crashes) for delivery in found] == [(0, 0)] * 3


@pytest.mark.filterwarnings("ignore:.*stay:pytest.PytestUnraisableExceptionWarning")  # Python's last word to it
@pytest.mark.parametrize("swallowed", [asyncio.CancelledError, BaseException])
async def test_a_handler_that_swallows_its_cancellation_does_not_keep_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, swallowed: type[BaseException]
) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.CANCEL_GRACE", 0.2)
    let_go = asyncio.Event()
    stuck = Group("ears", lease=0.5)

    @stuck.on(Rung)
    async def stay(event: Rung, ctx: Context) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except swallowed:
                continue

    started = Stopwatch()
    with capture_logs() as lines:
        async with bench.consuming(stuck, grace=0.1):
            await bench.ring(2)
            await until(lambda: bench.isolation.running == 2)
    left = bench.isolation.running
    let_go.set()  # else they would keep this test's own loop
    assert left == 0, "closed where they waited"
    assert started.seconds < 3
    said = [line for line in lines if "does not end" in line["event"]]
    assert len(said) == 2
    assert all(line["log_level"] == "error" and line["handler"].endswith("stay") for line in said)
    assert [(delivery.failures, delivery.crashes) for delivery in await bench.left()] == [(0, 0)] * 2


async def test_nothing_is_started_after_a_stop(bench: Bench) -> None:
    ears = Ears(failing(1), concurrency=1)
    async with bench.consuming(ears.group) as consumer:
        await until(lambda: bench.transport.credits)
        consumer.stop()
        await bench.ring(5)
    assert ears.attempts == []
    assert len(await bench.left()) == 5


async def test_a_stop_while_the_server_is_away_ends_in_bounded_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.SETTLE_GRACE", 0.5)
    ears = Ears()
    started = Stopwatch()
    async with bench.consuming(ears.group, grace=0.1):
        await bench.ring(1)
        await until(lambda: ears.running == 0 and ears.heard)
        bench.transport.trouble = dict.fromkeys(("read", "reclaim", "renew", "settle"), Unavailable("Redis", "gone"))
        await bench.ring(1)
    assert started.seconds < 3


async def test_a_cancelled_consumer_leaves_no_task_behind(bench: Bench) -> None:
    ears = Ears()
    ears.go_on.clear()
    consumer = Consumer(bench.transport, ears.group, Executor(ears.group, bench.bus), "ann", Isolation())
    running = asyncio.create_task(consumer.run(lambda: 5.0))
    await bench.ring(3)
    await until(lambda: ears.running == 3)
    running.cancel()
    await asyncio.wait([running])
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
