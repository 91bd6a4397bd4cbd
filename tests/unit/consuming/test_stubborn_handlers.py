"""A handler that swallows the cancellation of its timeout: told, cancelled again, and at last done with. In every kind
of group, and when the worker is stopped meanwhile."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from eventbus import Batch, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.context import HandlerBus
from eventbus.contract.delivery import Ack, Dead, Release, Retry
from eventbus.contract.tap import Passing
from eventbus.handling.listeners import Finished
from eventbus.policy import Backoff
from tests.waiting import PATIENCE, until

ONCE_MORE = RetryPolicy(attempts=2, backoff=Backoff.fixed(0.01))


class Asked(Event, type="overruns.asked"):
    number: int = 0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.process.task_deadlines.PATIENCE", 0.05)
    monkeypatch.setattr("eventbus.process.task_deadlines.AGAIN", 0.01)


class Other(Event, type="overruns.other"):
    pass


class Deaf:
    """Does not end when it is told to, for the first event; for others it ends at once."""

    def __init__(self, swallows: type[BaseException] = asyncio.CancelledError) -> None:
        self.swallows = swallows
        self.begun: list[int] = []
        self.cancelled = 0
        self.let_go = asyncio.Event()

    async def hear(self, number: int) -> None:
        self.begun.append(number)
        while number == 0 and not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except self.swallows:
                self.cancelled += 1

    def single(self) -> Group:
        group = Group("deaf", concurrency=1, timeout=0.05, retry=ONCE_MORE)

        @group.on(Asked)
        async def hear(event: Asked, _ctx: Context) -> None:
            await self.hear(event.number)

        return group

    def batched(self) -> Group:
        group = Group("deaf", concurrency=1, timeout=0.05, retry=ONCE_MORE)

        @group.on_batch(Asked, max_size=1)
        async def hear(batch: Batch[Asked]) -> None:
            await self.hear(batch[0].event.number)

        return group

    def beside_batches(self) -> Group:
        group = self.single()

        @group.on_batch(Other)
        async def never(_batch: Batch[Other]) -> None:
            raise AssertionError

        return group

    def tapping(self) -> Group:
        group = Group("deaf", concurrency=1, timeout=0.05, retry=ONCE_MORE)

        @group.tap("overruns", max_size=1)
        async def hear(passing: Sequence[Passing], _publisher: HandlerBus) -> None:
            await self.hear(int(b'"number":0' not in passing[0].envelope.data))

        return group


KINDS = [Deaf.single, Deaf.batched, Deaf.beside_batches, Deaf.tapping]


@pytest.mark.filterwarnings("ignore:.*hear:pytest.PytestUnraisableExceptionWarning")  # Python's last word to it
@pytest.mark.parametrize("swallows", [asyncio.CancelledError, BaseException])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_told_of_and_done_with_and_its_event_fails(
    kind: Callable[[Deaf], Group], swallows: type[BaseException]
) -> None:
    deaf, finished = Deaf(swallows), list[Finished]()
    async with EventBus("memory://", listeners=[finished.append]) as bus:
        before = asyncio.all_tasks()
        worker = Worker(bus, [kind(deaf)], grace=0.0)
        with capture_logs() as lines:
            running = asyncio.create_task(worker.run(signals=False))
            await bus.publish_many([Asked(number=0), Asked(number=1)])
            async with asyncio.timeout(PATIENCE):
                while not (letters := await bus.transport.dead_letters("overruns")):
                    await asyncio.sleep(0.005)
                await until(lambda: 1 in deaf.begun)  # its place is free
            deaf.let_go.set()
            await worker.stop()
            await running
        await until(lambda: not asyncio.all_tasks() - before)
    [letter] = letters
    assert letter.attempts == 2
    assert "TimeoutError: it went on for" in letter.error
    assert deaf.cancelled >= 4
    outcomes = [type(each.outcome) for each in finished]
    assert sorted(outcome.__name__ for outcome in outcomes) == ["Ack", "Dead", "Retry"], "what came later counts not"
    assert {Ack, Dead, Retry} == set(outcomes)
    said = [line for line in lines if line["event"].startswith("a handler goes on though its time is up")]
    assert [line["event"].rpartition(", ")[2] for line in said] == [
        *("and is cancelled again", "and is done with: the attempt has failed") * 2
    ]
    assert {(line["log_level"], line["group"], line["event_id"]) for line in said} == {
        ("error", "deaf", letter.envelope.id if letter.envelope else "")
    }
    assert all(line["handler"].endswith("hear") and line["seconds"] >= 0 for line in said)
    assert bus.metrics.overdue == {"deaf": 2}


async def test_a_cleanup_that_takes_its_time_is_left_in_peace() -> None:
    """And a task that has ended in time and runs another event is not taken for the first."""
    group, ended = Group("deaf", concurrency=1, timeout=0.02, retry=RetryPolicy(attempts=1)), list[int]()

    @group.on(Asked)
    async def clean_up(event: Asked, _ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append(event.number)

    async with EventBus("memory://") as bus:
        worker = Worker(bus, [group])
        with capture_logs() as lines:
            running = asyncio.create_task(worker.run(signals=False))
            await bus.publish_many([Asked(number=number) for number in range(4)])
            await until(lambda: len(ended) == 4)
            await worker.stop()
            await running
    assert not [line for line in lines if line["event"].startswith("a handler goes on")]


async def test_one_that_the_worker_stops_meanwhile_is_given_back() -> None:
    group, begun, finished = (
        Group("deaf", timeout=0.02, retry=RetryPolicy(attempts=1)),
        asyncio.Event(),
        list[Finished](),
    )

    @group.on(Asked)
    async def linger(_event: Asked, _ctx: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            begun.set()
            await asyncio.sleep(60)  # until it is cancelled again

    async with EventBus("memory://", listeners=[finished.append]) as bus:
        running = asyncio.create_task(Worker(bus, [group]).run(signals=False))
        await bus.publish(Asked())
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
    assert [type(each.outcome) for each in finished] == [Release]


async def test_one_that_swallows_its_abort_is_done_with_and_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.operating.control.INTERVAL", 0.01)
    deaf, group = Deaf(), Group("deaf", timeout=None)

    @group.on(Asked)
    async def hear(event: Asked, _ctx: Context) -> None:
        await deaf.hear(event.number)

    async with EventBus("memory://") as bus:
        worker = Worker(bus, [group])
        with capture_logs() as lines:
            running = asyncio.create_task(worker.run(signals=False))
            receipt = await bus.publish(Asked(number=0))
            await until(lambda: deaf.begun)
            await bus.events.abort(receipt.id, reason="it is wrong")
            async with asyncio.timeout(PATIENCE):
                while not (letters := await bus.transport.dead_letters("overruns")):
                    await asyncio.sleep(0.005)
            deaf.let_go.set()
            await worker.stop()
            await running
    assert "Cancelled" in letters[0].error
    assert "it is wrong" in letters[0].error
    assert len([line for line in lines if line["event"].startswith("a handler goes on")]) == 2
