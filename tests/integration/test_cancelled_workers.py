"""Servers' lifespans, task groups and asyncio.run end a worker by cancelling it. What it held goes to others at once,
no attempt is spent and nobody is blamed, and nothing of it is left: no task, no connection, no thread."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import structlog
import uvloop
from redis.asyncio import Redis

from eventbus import Batch, ConfigurationError, Context, Event, EventBus, Group, RateLimit, RetryPolicy, Worker
from eventbus.context import HandlerBus
from eventbus.contract.delivery import Refusal, Settlement
from eventbus.contract.tap import Passing
from eventbus.memory import MemoryTransport
from tests.waiting import PATIENCE, until

EVENTS = 5


class Lit(Event, type="lamps.lit"):
    number: int = 0


class Lamps:
    """Groups of every kind, whose handlers go on until they are cancelled, and may make something of that."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int]] = []  # group, failures and crashes
        self.make_of_it: Callable[[], object] = lambda: None
        self.go_on = asyncio.Event()
        once = RetryPolicy(attempts=1)
        self.single = Group("single", retry=once, concurrency=3)
        self.limited = Group("limited", retry=once, rate_limit=RateLimit(1_000, per=1.0))
        self.batched = Group("batched", retry=once)
        self.single.on(Lit)(self.burn)
        self.limited.on(Lit)(self.burn)
        self.batched.on_batch(Lit, max_wait=0.01)(self.burn_all)

    @property
    def groups(self) -> list[Group]:
        return [self.single, self.limited, self.batched]

    def note(self, ctx: Context) -> None:
        assert ctx.delivery is not None
        self.begun.append((ctx.group, ctx.delivery.failures, ctx.delivery.crashes))

    async def burn(self, _event: Lit, ctx: Context) -> None:
        self.note(ctx)
        await self.shine()

    async def burn_all(self, batch: Batch[Lit]) -> None:
        for item in batch:
            self.note(item.ctx)
        await self.shine()

    async def shine(self) -> None:
        try:
            await self.go_on.wait()
        finally:
            if not self.go_on.is_set():
                self.make_of_it()

    def all_begun(self) -> bool:
        return {group for group, *_ in self.begun} == {"single", "limited", "batched"}


def cut() -> None:
    raise ConnectionResetError("the upload was cut")


def cut_in_a_group() -> None:
    raise ExceptionGroup("both", [ConnectionResetError("the upload was cut"), ValueError("and worse")])


async def test_five_in_a_row_in_memory() -> None:
    await _five_in_a_row("memory://")


async def test_five_in_a_row_on_a_server(any_redis_url: str) -> None:
    async with Redis.from_url(any_redis_url, socket_timeout=PATIENCE) as client:
        before = await _connections(client)
        await _five_in_a_row(any_redis_url)
        await until_async(client, before)


async def _begun(lamps: Lamps, running: "asyncio.Task[None]") -> None:
    await until(lambda: lamps.all_begun() or running.done())
    assert not running.done(), running.exception()


def _left(before: "set[asyncio.Task[Any]]") -> list[str]:
    tasks = {task for task in asyncio.all_tasks() - before if not task.done()}
    return [f"{task.get_name()} {task.get_coro()}"[:200] for task in tasks if task.get_name() != "pulse"]  # the bus'


async def until_async(client: "Redis", before: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await _connections(client) > before:
            await asyncio.sleep(0.005)


async def _connections(client: "Redis") -> int:
    return sum(str(each["name"]).startswith("eventbus") for each in await client.client_list())


async def _five_in_a_row(url: str) -> None:
    lamps = Lamps()
    async with EventBus(url) as bus:
        await bus.publish_many([Lit(number=number) for number in range(EVENTS)])
        before = asyncio.all_tasks()
        for make_of_it in (lambda: None, cut, cut_in_a_group, lambda: None, cut):
            lamps.begun, lamps.make_of_it = [], make_of_it
            running = asyncio.create_task(Worker(bus, lamps.groups).run())
            await _begun(lamps, running)
            with structlog.testing.capture_logs() as lines:
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
            assert _left(before) == []
            assert not [thread for thread in threading.enumerate() if thread.name == "eventbus-lifeline"]
            assert {line["reason"] for line in lines if line["event"] == "given back"} == {"the worker was cancelled"}
            assert "the worker was cancelled: what runs is given back" in [line["event"] for line in lines]
        lamps.go_on.set()
        lamps.begun = []
        worker = Worker(bus, lamps.groups)
        running = asyncio.create_task(worker.run())
        await until(lambda: len(lamps.begun) == EVENTS * len(lamps.groups))
        await worker.stop()
        await running
        assert {(failures, crashes) for _, failures, crashes in lamps.begun} == {(0, 0)}
        assert await bus.transport.dead_letters("lamps") == []


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_end_of_asyncio_run_cancels_every_task_at_once(
    redis_url: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def work(lamps: Lamps) -> None:
        async with EventBus(redis_url) as bus:
            await bus.publish_many([Lit(number=number) for number in range(EVENTS)])
            await Worker(bus, lamps.groups).run()

    async def main() -> None:
        lamps = Lamps()
        asyncio.create_task(work(lamps), name="work")  # noqa: RUF006 - nobody waits for it: that is what is tried
        await until(lamps.all_begun)

    async def look() -> None:
        lamps = Lamps()
        lamps.go_on.set()
        async with EventBus(redis_url) as bus:
            worker = Worker(bus, lamps.groups)
            running = asyncio.create_task(worker.run())
            await until(lambda: len(lamps.begun) == EVENTS * len(lamps.groups))
            await worker.stop()
            await running
        assert {(failures, crashes) for _, failures, crashes in lamps.begun} == {(0, 0)}

    for scene in (main, look):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(scene())


async def test_what_a_cancelled_read_has_been_handed_goes_to_others_at_once(any_redis_url: str) -> None:
    """A server hands events to a read that is under way, whether or not anybody waits for its reply."""
    lamps = Lamps()
    lamps.go_on.set()
    single = Group("single", lease=60.0)
    single.on(Lit)(lamps.burn)
    async with EventBus(any_redis_url) as bus:
        running = asyncio.create_task(Worker(bus, [single]).run())
        await bus.publish(Lit())
        await until(lambda: lamps.begun)
        [reading] = [task for task in asyncio.all_tasks() if task.get_name().startswith("read:")]
        async with Redis.from_url(any_redis_url, socket_timeout=PATIENCE) as client:
            async with asyncio.timeout(PATIENCE):
                while not [each for each in await client.client_list() if "b" in each["flags"]]:
                    await asyncio.sleep(0.005)
            reading.cancel()
            await asyncio.wait([reading])
            await bus.publish_many([Lit(number=number) for number in range(EVENTS)])
            async with asyncio.timeout(PATIENCE):
                while not (await client.xpending("eb:{lamps}:stream", "single"))["pending"]:
                    await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert len(lamps.begun) == 1
        worker = Worker(bus, [single])
        running = asyncio.create_task(worker.run())
        await until(lambda: len(lamps.begun) == 1 + EVENTS)
        await worker.stop()
        await running
    assert lamps.begun == [("single", 0, 0)] * (1 + EVENTS)


class Mute(MemoryTransport):
    """Does not answer the first settlement."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        if not self.asked.is_set():
            self.asked.set()
            await asyncio.Event().wait()
        return await super().settle(settlements)


async def test_what_is_being_settled_when_every_task_is_cancelled_is_settled() -> None:
    lamps = Lamps()
    lamps.go_on.set()
    bus = EventBus("memory://")
    transport = bus.transport = Mute()
    async with bus:
        await bus.publish(Lit())
        before = asyncio.all_tasks()
        asyncio.create_task(Worker(bus, [lamps.single]).run())  # noqa: RUF006 - they are all cancelled
        await transport.asked.wait()
        tasks = asyncio.all_tasks() - before
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert transport.due_at("single", ["lamps"]) is None


async def test_a_second_cancellation_ends_it_at_once() -> None:
    stubborn, begun = Group("stubborn"), asyncio.Event()
    let_go = asyncio.Event()
    ended: list[str] = []

    @stubborn.on(Lit)
    async def linger(_event: Lit, _ctx: Context) -> None:
        begun.set()
        try:
            await let_go.wait()
        finally:
            try:
                await let_go.wait()  # a cleanup that takes its time
            finally:
                ended.append("closed")

    async with EventBus("memory://") as bus:
        await bus.publish(Lit())
        before = asyncio.all_tasks()
        running = asyncio.create_task(Worker(bus, [stubborn]).run())
        await begun.wait()
        running.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (running.done(), ended) == (False, [])
        loop = asyncio.get_running_loop()
        cancelled_at = loop.time()
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert ended == ["closed"]
        assert loop.time() - cancelled_at < 30  # nothing was waited for
        assert _left(before) == []


async def test_a_task_group_ends_a_worker_and_its_caller_sees_its_own_error() -> None:
    lamps = Lamps()

    async def fail() -> None:
        await until(lamps.all_begun)
        raise RuntimeError("the other service of this process")

    async def serve(bus: EventBus) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Worker(bus, lamps.groups).run())
            tasks.create_task(fail())

    async with EventBus("memory://") as bus:
        await bus.publish(Lit())
        with pytest.raises(ExceptionGroup) as raised:
            await serve(bus)
    assert [str(error) for error in raised.value.exceptions] == ["the other service of this process"]


async def test_a_cleanup_that_fails_at_a_stop_spends_nothing() -> None:
    lamps, tapped = Lamps(), Group("tapped", retry=RetryPolicy(attempts=1))
    seen: list[int] = []

    @tapped.tap("lamps", max_wait=0.01)
    async def tap(events: Sequence[Passing], _bus: HandlerBus) -> None:
        seen.append(len(events))
        await lamps.shine()

    async with EventBus("memory://") as bus:
        await bus.publish_many([Lit(number=number) for number in range(EVENTS)])
        for make_of_it in (cut, cut_in_a_group):
            lamps.begun, lamps.make_of_it = [], make_of_it
            seen.clear()
            worker = Worker(bus, [*lamps.groups, tapped], grace=0.0)
            running = asyncio.create_task(worker.run(signals=False))
            await _begun(lamps, running)
            await until(lambda: seen)
            await worker.stop()
            await running
            assert {(failures, crashes) for _, failures, crashes in lamps.begun} == {(0, 0)}
        assert await bus.transport.dead_letters("lamps") == []


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_bus_that_closes_waits_for_its_workers(any_redis_url: str, cancels: bool) -> None:
    """Lifespans cancel without waiting, or forget it."""
    lamps = Lamps()
    async with EventBus(any_redis_url) as bus:
        await bus.publish_many([Lit(number=number) for number in range(EVENTS)])
        before = asyncio.all_tasks()
        running = asyncio.create_task(Worker(bus, lamps.groups).run())
        await _begun(lamps, running)
        if cancels:
            running.cancel()
    with pytest.raises(asyncio.CancelledError if cancels else ConfigurationError):
        await running
    assert _left(before) == []
    lamps.begun = []
    lamps.go_on.set()
    async with EventBus(any_redis_url) as bus:
        running = asyncio.create_task(Worker(bus, lamps.groups).run())
        await until(lambda: len(lamps.begun) == EVENTS * len(lamps.groups))
        await bus.close()
        with pytest.raises(ConfigurationError, match="the bus was closed while its worker ran"):
            await running
    assert {(failures, crashes) for _, failures, crashes in lamps.begun} == {(0, 0)}


async def test_a_handler_that_cancels_itself_spends_its_attempts() -> None:
    lost, runs = Group("lost", retry=RetryPolicy(attempts=1)), []

    @lost.on(Lit)
    async def give_up(_event: Lit, _ctx: Context) -> None:
        runs.append(1)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with EventBus("memory://") as bus:
        await bus.publish(Lit())
        worker = Worker(bus, [lost])
        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            while not await bus.transport.dead_letters("lamps"):
                await asyncio.sleep(0.005)
        await worker.stop()
        await running
    assert len(runs) == 1
