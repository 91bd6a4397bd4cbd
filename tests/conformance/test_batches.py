"""Batches on every transport: what is collected, when it runs, and that each event is settled by itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from eventbus import Backoff, Batch, Context, Event, EventBus, Finished, Group, RetryPolicy
from eventbus.consuming.consumer import Consumer
from eventbus.consuming.executor import Executor
from eventbus.consuming.suspects import Isolation
from eventbus.contract.broker import Broker
from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import SUSPECT_FROM, Ack, Dead, Release
from eventbus.errors import Reject, RetryLater, SnoozeFor
from eventbus.handling.middleware import CallNext
from tests.samples import consumer as subscription_of
from tests.samples import nothing_left, receive, reclaim
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE, eventually, until

FAST = RetryPolicy(attempts=3, backoff=Backoff.fixed(0.02))


class Picked(Event, type="berry.picked"):
    number: int


class Washed(Event, type="berry.washed"):
    number: int


class Cooked(Event, type="jam.cooked"):
    number: int


Handle = Callable[[Batch[Picked]], Awaitable[None]]


async def nothing(batch: Batch[Picked]) -> None:
    return


class Kitchen:
    """A group of batches that remembers what it was given. `handle` is what it does with them."""

    def __init__(self, transport: Broker, handle: Handle = nothing) -> None:
        self.transport = transport
        self.bus = EventBus("memory://")
        self.bus.transport = transport
        self.handle = handle
        self.batches: list[list[int]] = []
        self.attempts: list[int] = []
        self.told: list[Finished] = []
        self.running = self.peak = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    def group(self, *, max_size: int = 10, max_wait: float = 0.1, timeout: float = 30.0, **options: object) -> Group:
        settings: dict[str, object] = {"retry": FAST, "lease": 0.5, "concurrency": 1, **options}
        group = Group("jars", **settings)  # type: ignore[arg-type]
        group.on_batch(Picked, max_size=max_size, max_wait=max_wait, timeout=timeout)(self.take)
        group.listeners.append(self.told.append)
        return group

    async def take(self, batch: Batch[Picked]) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            self.batches.append([event.number for event in batch.events])
            self.attempts += [item.ctx.attempt for item in batch]
            await self.go_on.wait()
            await self.handle(batch)
        finally:
            self.running -= 1

    @property
    def taken(self) -> list[int]:
        return [number for batch in self.batches for number in batch]

    def ended(self, count: int) -> bool:
        return len([finished for finished in self.told if isinstance(finished.outcome, Ack | Dead)]) >= count

    async def pick(self, *numbers: int) -> None:
        await self.bus.publish_many([Picked(number=number) for number in numbers])

    @asynccontextmanager
    async def cooking(self, group: Group, *, grace: float = 5.0, name: str = "ann") -> AsyncIterator[Consumer]:
        executor = Executor(group, self.bus)
        consumer = Consumer(self.transport, group, executor, name, Isolation())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 3600
        running = asyncio.create_task(consumer.run(lambda: min(grace, deadline - loop.time())))
        try:
            yield consumer
        finally:
            deadline = loop.time() + grace
            consumer.stop()
            async with asyncio.timeout(PATIENCE):
                await running
            await executor.drain(0)

    async def nothing_left(self) -> bool:
        return await nothing_left(self.transport, subscription_of("heir", group="jars", stream="berry"))


@pytest.fixture
def kitchen(transport: Broker, monkeypatch: pytest.MonkeyPatch) -> Kitchen:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.2)  # a stop waits for reads to end
    return Kitchen(transport)


# Collecting -----------------------------------------------------------------------------------------------------------


async def test_what_waits_is_handled_in_full_batches_and_in_order(kitchen: Kitchen) -> None:
    await kitchen.pick(*range(30))
    async with kitchen.cooking(kitchen.group(max_wait=20.0)):
        await until(lambda: kitchen.ended(30))
    assert kitchen.batches == [list(range(10)), list(range(10, 20)), list(range(20, 30))]
    assert await kitchen.nothing_left()


async def test_a_lone_event_waits_no_longer_than_it_must(kitchen: Kitchen) -> None:
    async with kitchen.cooking(kitchen.group(max_wait=0.3)):
        with Stopwatch() as watch:
            await kitchen.pick(1)
            await until(lambda: kitchen.ended(1))
    [finished] = kitchen.told
    assert 0.28 <= finished.seconds < 1.0 + watch.kept_waiting


async def test_the_wait_is_counted_from_the_first_event(kitchen: Kitchen) -> None:
    async with kitchen.cooking(kitchen.group(max_wait=0.5, max_size=1_000)):
        for number in range(100):
            await kitchen.pick(number)
            await asyncio.sleep(0.01)
        await until(lambda: kitchen.ended(100))
    assert len(kitchen.batches) >= 2, "each further event does not put the batch off"


async def test_a_batch_goes_on_collecting_while_it_waits_for_its_turn(kitchen: Kitchen) -> None:
    kitchen.go_on.clear()
    async with kitchen.cooking(kitchen.group(max_wait=0.05, concurrency=2)):
        await kitchen.pick(1)
        await until(lambda: kitchen.running == 1)
        await kitchen.pick(2)
        await until(lambda: kitchen.running == 2)
        for number in (3, 4, 5):
            await kitchen.pick(number)
            await asyncio.sleep(0.1)
        assert kitchen.running == 2
        kitchen.go_on.set()
        await until(lambda: kitchen.ended(5))
    assert kitchen.batches == [[1], [2], [3, 4, 5]]


async def test_batches_count_as_handlers_and_so_do_the_others_beside_them(kitchen: Kitchen) -> None:
    group = kitchen.group(concurrency=2)

    @group.on(Washed)
    async def wash(event: Washed, ctx: Context) -> None:
        kitchen.running += 1
        kitchen.peak = max(kitchen.peak, kitchen.running)
        await asyncio.sleep(0.002)
        kitchen.running -= 1

    await kitchen.bus.publish_many([Washed(number=number) for number in range(50)])
    await kitchen.pick(*range(50))
    async with kitchen.cooking(group):
        await until(lambda: kitchen.ended(100))
    assert kitchen.peak <= 2
    assert sorted(kitchen.taken) == list(range(50))


async def test_types_of_one_registration_share_their_batches_across_streams(kitchen: Kitchen) -> None:
    group = Group("jars", concurrency=1, lease=0.5)
    met: list[list[str]] = []

    @group.on_batch(Washed, Cooked, max_size=4, max_wait=20.0)
    async def keep(batch: Batch[Washed | Cooked]) -> None:
        met.append(sorted(f"{item.ctx.envelope.type} {item.event.number}" for item in batch))

    await kitchen.bus.publish_many([Washed(number=1), Cooked(number=2), Washed(number=3), Cooked(number=4)])
    async with kitchen.cooking(group):
        await until(lambda: met)
    assert met == [["berry.washed 1", "berry.washed 3", "jam.cooked 2", "jam.cooked 4"]]


# Settling -------------------------------------------------------------------------------------------------------------


async def test_each_event_is_settled_by_itself(kitchen: Kitchen) -> None:
    async def judge(batch: Batch[Picked]) -> None:
        for item in batch:
            match item.event.number:
                case 1:
                    item.fail(Reject("unripe"))
                case 2 if item.ctx.attempt == 1:
                    item.fail(RetryLater(0.05))
                case 3 if kitchen.taken.count(3) < 3:
                    item.fail(SnoozeFor(0.05))
                case 4:
                    item.fail(ValueError("rotten"))

    kitchen.handle = judge
    await kitchen.pick(*range(10))
    async with kitchen.cooking(kitchen.group()):
        await until(lambda: kitchen.ended(10))
        letters = await eventually(lambda: _two(kitchen))
    assert sorted((letter.error, letter.attempts) for letter in letters) == [
        ("Reject: unripe", 1),
        ("ValueError: rotten", 3),
    ]
    assert [kitchen.taken.count(number) for number in range(10)] == [1, 1, 2, 3, 3, 1, 1, 1, 1, 1]
    assert kitchen.attempts.count(2) == 2, "of what was retried; a snooze spends none"
    assert await kitchen.nothing_left()


async def _two(kitchen: Kitchen) -> list[DeadLetter]:
    letters = await kitchen.transport.dead_letters("berry")
    return letters if len(letters) == 2 else []


async def test_what_a_handler_raises_is_the_failure_of_all_that_it_has_said_nothing_about(kitchen: Kitchen) -> None:
    async def fall(batch: Batch[Picked]) -> None:
        if batch[0].ctx.attempt > 1:
            return
        batch[0].done()
        batch[1].fail(Reject("unripe"))
        raise ValueError("the pot fell")

    kitchen.handle = fall
    await kitchen.pick(*range(4))
    async with kitchen.cooking(kitchen.group(max_size=4, max_wait=0.2)):
        await until(lambda: kitchen.ended(4))
    assert kitchen.batches[0] == [0, 1, 2, 3]
    assert sorted(kitchen.taken[4:]) == [2, 3]
    assert [type(finished.error) for finished in kitchen.told[:4]] == [type(None), Reject, ValueError, ValueError]


async def test_a_batch_that_takes_too_long_has_failed(kitchen: Kitchen) -> None:
    kitchen.go_on.clear()
    await kitchen.pick(1, 2)
    async with kitchen.cooking(kitchen.group(max_size=2, max_wait=20.0, timeout=0.1)):
        await until(lambda: len(kitchen.told) >= 2)
        kitchen.go_on.set()
        await until(lambda: kitchen.ended(2))
    assert [type(finished.error) for finished in kitchen.told[:2]] == [TimeoutError] * 2


async def test_middleware_is_around_each_event(kitchen: Kitchen) -> None:
    way: list[str] = []

    async def record(event: Event, ctx: Context, call_next: CallNext) -> None:
        number = event.model_dump()["number"]
        if number == 3:
            raise Reject("not this one")
        try:
            await call_next(event, ctx)
        except ValueError:
            way.append(f"{number} failed")
        else:
            way.append(f"{number} done")

    async def judge(batch: Batch[Picked]) -> None:
        batch[1].fail(ValueError())

    kitchen.handle = judge
    await kitchen.pick(1, 2, 3)
    async with kitchen.cooking(kitchen.group(max_size=2, max_wait=20.0, middleware=[record])):
        await until(lambda: kitchen.ended(3))
    assert kitchen.batches == [[1, 2]]
    assert sorted(way) == ["1 done", "2 failed"]


# Holding --------------------------------------------------------------------------------------------------------------


async def test_leases_are_kept_while_a_batch_collects_and_while_it_runs(kitchen: Kitchen) -> None:
    kitchen.go_on.clear()
    rival = Kitchen(kitchen.transport)
    async with kitchen.cooking(kitchen.group(max_size=3, max_wait=1.0)):
        await kitchen.pick(1, 2)
        await asyncio.sleep(0.3)
        async with rival.cooking(rival.group(), name="bob"):
            await until(lambda: kitchen.running == 1)
            await asyncio.sleep(1.0)
            kitchen.go_on.set()
            await until(lambda: kitchen.ended(2))
    assert (kitchen.batches, rival.batches) == ([[1, 2]], [])


async def test_a_stop_gives_back_what_only_waits_for_its_batch(kitchen: Kitchen) -> None:
    kitchen.go_on.clear()
    async with kitchen.cooking(kitchen.group(max_size=2, max_wait=20.0, concurrency=2)) as consumer:
        await kitchen.pick(1, 2, 3)
        await until(lambda: kitchen.running == 1)
        await asyncio.sleep(0.1)
        consumer.stop()
        heir = subscription_of("heir", group="jars", stream="berry")
        [given_back] = await reclaim(kitchen.transport, heir)
        assert (given_back.failures, given_back.crashes, given_back.fields[b"data"]) == (0, 0, b'{"number":3}')
        kitchen.go_on.set()
    assert kitchen.batches == [[1, 2]]
    assert sorted(type(finished.outcome).__name__ for finished in kitchen.told) == ["Ack", "Ack", "Release"]


async def test_a_pause_gives_back_what_only_waits_for_its_batch(kitchen: Kitchen) -> None:
    async with kitchen.cooking(kitchen.group(max_size=2, max_wait=20.0)) as consumer:
        await kitchen.pick(1)
        await asyncio.sleep(0.2)
        consumer.pause(True)
        await until(lambda: kitchen.told)
        assert [type(finished.outcome) for finished in kitchen.told] == [Release]
        consumer.pause(False)
        await kitchen.pick(2)
        await until(lambda: kitchen.ended(2))
    assert [sorted(batch) for batch in kitchen.batches] == [[1, 2]]


async def test_a_stop_gives_back_the_whole_batch_that_does_not_end_in_time(kitchen: Kitchen) -> None:
    kitchen.go_on.clear()
    with capture_logs() as lines:
        async with kitchen.cooking(kitchen.group(max_size=3, max_wait=20.0), grace=0.1):
            await kitchen.pick(1, 2, 3)
            await until(lambda: kitchen.running == 1)
    assert kitchen.running == 0
    assert not [line for line in lines if line["log_level"] == "error"], "it was cancelled, and not abandoned"
    found = await reclaim(kitchen.transport, subscription_of("heir", group="jars", stream="berry"), 3)
    assert [(delivery.failures, delivery.crashes) for delivery in found] == [(0, 0)] * 3


async def test_a_batch_handler_that_swallows_its_cancellation_keeps_nobody(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.CANCEL_GRACE", 0.2)

    async def stay(batch: Batch[Picked]) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    kitchen.handle = stay
    async with kitchen.cooking(kitchen.group(max_size=2, max_wait=20.0), grace=0.1):
        await kitchen.pick(1, 2)
        await until(lambda: kitchen.running == 1)
    assert kitchen.running == 0
    assert len(await reclaim(kitchen.transport, subscription_of("heir", group="jars", stream="berry"), 2)) == 2


async def test_a_suspect_is_a_batch_of_its_own_and_waits_for_nobody(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.RECLAIM_INTERVAL", 0.05)
    await kitchen.pick(1)
    holders = [subscription_of(f"{uuid4()}", group="jars", stream="berry", lease=0.1) for _ in range(SUSPECT_FROM)]
    await receive(kitchen.transport, holders[0])
    for holder in holders[1:]:
        await reclaim(kitchen.transport, holder)
    await kitchen.pick(*range(2, 7))
    async with kitchen.cooking(kitchen.group(max_size=5, max_wait=20.0, lease=0.1)):
        await until(lambda: kitchen.ended(6))
    assert sorted(kitchen.batches) == [[1], [2, 3, 4, 5, 6]]
