"""Several groups in one process, from the first event to the last settlement. Signals: see tests/faults."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from eventbus import Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.contract.recurring import Tick
from eventbus.contract.transaction import Database
from eventbus.errors import ConfigurationError
from eventbus.handling.listeners import Finished, Listener
from eventbus.handling.middleware import CallNext, Middleware
from eventbus.policy import Backoff
from tests.samples import consumer
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, until


class Planted(Event, type="garden.planted"):
    number: int = 0


class Watered(Event, type="garden.watered"):
    number: int = 0


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)  # a stop waits for reads to end


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        async with asyncio.timeout(PATIENCE):
            await running


def group_of(name: str, *event_classes: type[Event], act: Callable[[Any, Context], None], **options: Any) -> Group:
    group = Group(name, **{"retry": RetryPolicy(attempts=2, backoff=Backoff.fixed(0.01)), **options})

    async def handle(event: Event, ctx: Context) -> None:
        act(event, ctx)

    group.on(*event_classes)(handle)
    return group


def remember(heard: list[str]) -> Callable[[Any, Context], None]:
    return lambda event, ctx: heard.append(f"{ctx.group} {event.event_type} {event.number}")


async def test_every_group_gets_every_event_once(bus: EventBus) -> None:
    heard: list[str] = []
    groups = [
        group_of("gardener", Planted, act=remember(heard)),
        group_of("watchman", Planted, Watered, act=remember(heard)),
    ]
    await bus.publish(Planted(number=1))
    async with working(Worker(bus, groups)):
        await bus.publish(Watered(number=2))
        await until(lambda: len(heard) == 3)
    assert sorted(heard) == ["gardener garden.planted 1", "watchman garden.planted 1", "watchman garden.watered 2"]


async def test_two_workers_share_the_events_of_a_group(bus: EventBus) -> None:
    heard: list[str] = []
    group = group_of("gardener", Planted, act=remember(heard), concurrency=1)
    async with working(Worker(bus, [group])), working(Worker(bus, [group])):
        await bus.publish_many([Planted(number=number) for number in range(100)])
        await until(lambda: len(heard) == 100)
    assert len(set(heard)) == 100


async def test_a_handler_publishes_in_its_event_s_name(bus: EventBus) -> None:
    seen: list[tuple[str, str | None, str]] = []
    group = Group("gardener")

    @group.on(Planted)
    async def water(event: Planted, ctx: Context) -> None:
        seen.append((ctx.event_id, ctx.envelope.causation_id, ctx.correlation_id))
        await ctx.publish(Watered(number=event.number))

    @group.on(Watered)
    async def rest(event: Watered, ctx: Context) -> None:
        seen.append((ctx.event_id, ctx.envelope.causation_id, ctx.correlation_id))

    async with working(Worker(bus, [group])):
        receipt = await bus.publish(Planted())
        await until(lambda: len(seen) == 2)
    (first, _, _), (_, cause, correlation) = seen
    assert receipt.id == first == cause == correlation


async def test_a_delayed_event_is_never_early_and_hardly_late(bus: EventBus) -> None:
    arrived: list[float] = []
    group = group_of("gardener", Planted, act=lambda event, ctx: arrived.append(time.monotonic()))
    async with working(Worker(bus, [group])):
        for delay in (0.2, 1.2):
            with Stopwatch() as watch:
                published = time.monotonic()
                await bus.publish(Planted(), delay=delay)
                await until(lambda: arrived)
            assert delay - 0.001 <= arrived.pop() - published < delay + 0.2 + watch.kept_waiting


async def test_a_failing_handler_stops_nothing_and_its_event_dies(bus: EventBus) -> None:
    heard: list[str] = []

    def act(event: Planted, ctx: Context) -> None:
        if event.number == 0:
            raise ValueError("no")
        remember(heard)(event, ctx)

    async with working(Worker(bus, [group_of("gardener", Planted, act=act)])):
        await bus.publish_many([Planted(number=number) for number in range(3)])
        await until(lambda: len(heard) == 2)
        async with asyncio.timeout(PATIENCE):
            while not (letters := await bus.transport.dead_letters("garden")):
                await asyncio.sleep(0.01)
    assert [(letter.attempts, letter.error) for letter in letters] == [(2, "ValueError: no")]


async def test_what_does_not_finish_within_the_grace_is_given_back(bus: EventBus) -> None:
    started: list[Planted] = []
    group = Group("gardener")

    @group.on(Planted)
    async def dig(event: Planted, ctx: Context) -> None:
        started.append(event)
        await asyncio.sleep(60)

    async with working(Worker(bus, [group], grace=0.1)):
        await bus.publish(Planted())
        await until(lambda: started)
    heir = consumer("heir", group="gardener", stream="garden")
    [delivery] = (await bus.transport.reclaim(heir, 10)).deliveries
    assert (delivery.failures, delivery.crashes) == (0, 0)


async def test_a_stop_before_the_start_is_a_stop(bus: EventBus) -> None:
    worker = Worker(bus, [group_of("gardener", Planted, act=lambda event, ctx: None)])
    await worker.stop()
    async with asyncio.timeout(PATIENCE):
        await worker.run()


async def test_a_cancelled_worker_leaves_nothing_behind(bus: EventBus) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    running = asyncio.create_task(Worker(bus, [group_of("gardener", Planted, act=lambda event, ctx: None)]).run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_worker_outside_of_the_main_thread_leaves_signals_alone() -> None:
    finished: list[bool] = []

    async def main() -> None:
        async with EventBus("memory://") as bus:
            worker = Worker(bus, [group_of("gardener", Planted, act=lambda event, ctx: None)])
            asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(worker.stop()))
            await worker.run()
            finished.append(True)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join(10)
    assert finished == [True]


# Middleware and listeners ---------------------------------------------------------------------------------------------


async def test_middleware_and_listeners_of_bus_worker_and_group() -> None:
    way: list[str] = []

    def listener(name: str) -> Listener:
        return lambda finished: way.append(f"{name} hears {type(finished.outcome).__name__}")

    def layer(name: str) -> Middleware:
        async def pass_through(event: Event, ctx: Context, call_next: CallNext) -> None:
            way.append(name)
            await call_next(event, ctx)

        return pass_through

    group = group_of("gardener", Planted, act=lambda event, ctx: way.append("handler"), middleware=[layer("inner")])

    @group.on_completed
    async def tell(finished: Finished) -> None:
        await asyncio.sleep(0.5)  # longer than a stop takes
        way.append("group has heard")

    async with EventBus("memory://", middleware=[layer("outer")], listeners=[listener("bus")]) as bus:
        async with working(Worker(bus, [group], listeners=[listener("worker")])):
            await bus.publish(Planted())
            await until(lambda: "worker hears Ack" in way)
        assert way == ["outer", "inner", "handler", "bus hears Ack", "worker hears Ack", "group has heard"]


async def test_a_failing_event_is_told_from_its_first_attempt_to_its_death(bus: EventBus) -> None:
    heard: list[tuple[str, int]] = []

    def act(event: Planted, ctx: Context) -> None:
        raise ValueError("no")

    group = group_of("gardener", Planted, act=act)
    group.on_failed(lambda finished: heard.append(("failed", finished.delivery.attempt)))
    group.on_dead(lambda finished: heard.append(("dead", finished.delivery.attempt)))
    group.on_error(lambda finished: heard.append(("error", finished.delivery.attempt)))
    group.on_completed(lambda finished: heard.append(("completed", finished.delivery.attempt)))
    async with working(Worker(bus, [group])):
        await bus.publish(Planted())
        await until(lambda: len(heard) == 4)
    assert heard == [("failed", 1), ("error", 1), ("dead", 2), ("error", 2)]


async def test_listeners_that_always_fail_stop_nothing(bus: EventBus) -> None:
    heard: list[str] = []

    def fall(finished: Finished) -> None:
        raise ValueError("no")

    async def fall_later(finished: Finished) -> None:
        raise SystemExit(1)

    group = group_of("gardener", Planted, act=remember(heard))
    group.on_completed(fall_later)
    async with working(Worker(bus, [group], listeners=[fall])):
        await bus.publish_many([Planted(number=number) for number in range(20)])
        await until(lambda: len(heard) == 20)
    assert len(set(heard)) == 20


async def test_a_listener_that_hangs_holds_the_worker_for_a_bounded_time(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.worker.LISTENER_GRACE", 0.05)
    heard: list[str] = []

    async def hang(finished: Finished) -> None:
        heard.append("begun")
        await asyncio.sleep(60)

    group = group_of("gardener", Planted, act=lambda event, ctx: None)
    group.on_completed(hang)
    async with asyncio.timeout(PATIENCE):
        async with working(Worker(bus, [group])):
            await bus.publish(Planted())
            await until(lambda: heard)
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


async def test_a_cancelled_worker_leaves_no_listener_behind(bus: EventBus) -> None:
    heard: list[str] = []

    async def hang(finished: Finished) -> None:
        heard.append("begun")
        await asyncio.sleep(60)

    group = group_of("gardener", Planted, act=lambda event, ctx: None)
    group.on_completed(hang)
    running = asyncio.create_task(Worker(bus, [group]).run())
    await bus.publish(Planted())
    await until(lambda: heard)
    running.cancel()
    await asyncio.wait([running])
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


# The relay beside the groups ------------------------------------------------------------------------------------------


class Relaying:
    """As much of a database as a worker sees: its relay."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.running = 0

    def relay(self, transport: object, primary: object) -> "Relaying":
        return self

    async def run(self) -> None:
        self.running += 1
        try:
            if self.error is not None:
                raise self.error
            await asyncio.sleep(60)
        finally:
            self.running -= 1

    async def connect(self) -> None:
        return

    async def close(self) -> None:
        return


async def test_the_outbox_is_relayed_for_as_long_as_the_worker_runs(bus: EventBus) -> None:
    database = Relaying()
    bus.database = cast(Database, database)
    group = group_of("gardener", Planted, act=lambda event, ctx: None)
    async with working(Worker(bus, [group])):
        await until(lambda: database.running == 1)
    assert database.running == 0
    async with working(Worker(bus, [group], relay=False)):
        await asyncio.sleep(0.05)
        assert database.running == 0


async def test_a_relay_that_fails_for_good_ends_the_worker_in_good_order(bus: EventBus) -> None:
    bus.database = cast(Database, Relaying(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        await Worker(bus, [group_of("gardener", Planted, act=lambda event, ctx: None)]).run()
    assert {task for task in asyncio.all_tasks() if not task.done()} == {asyncio.current_task()}


# What cannot work -----------------------------------------------------------------------------------------------------


async def test_nothing_to_run_is_refused(bus: EventBus) -> None:
    with pytest.raises(ConfigurationError, match="nothing to run: no groups"):
        Worker(bus, [])
    with pytest.raises(ConfigurationError, match=r"nothing to run: empty \(are the handlers imported\?\)"):
        Worker(bus, [group_of("full", Planted, act=lambda event, ctx: None), Group("empty")])


async def test_two_groups_of_one_name_are_refused(bus: EventBus) -> None:
    groups = [group_of("gardener", Planted, act=lambda event, ctx: None) for _ in range(2)]
    with pytest.raises(ConfigurationError, match="two groups share a name: gardener"):
        Worker(bus, groups)


async def test_two_groups_whose_firings_would_share_a_stream_are_refused(bus: EventBus) -> None:
    groups = [Group("bulb-lift"), Group("bulb.lift")]
    for group, name in zip(groups, ("dig", "dry"), strict=True):
        group.every(60, name=name)(_nothing)
    with pytest.raises(ConfigurationError, match=r"'bulb-lift' and 'bulb\.lift' would share .* 'tick_bulb_lift': let"):
        Worker(bus, groups)
    Worker(bus, groups[:1])


async def _nothing(tick: Tick, ctx: Context) -> None:
    """A recurring function."""
