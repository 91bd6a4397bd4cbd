"""What a test sees on the bus in memory is what Redis makes of it: the same events, handlers and policies on each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventbus import Backoff, Context, Event, EventBus, Group, Reject, RetryLater, RetryPolicy, Worker
from eventbus.contract.codec import envelop
from eventbus.contract.delivery import Ack, Dead
from eventbus.contract.outgoing import Outgoing
from eventbus.handling.listeners import Finished
from eventbus.testing import MemoryBus
from tests.waiting import until

ATTEMPTS = 3


class Thrown(Event, type="ball.thrown"):
    how: str


class Caught(Event, type="ball.caught"):
    how: str
    attempt: int


WAYS = ["well", "twice", "never", "reject", "later", "delayed", "cancelled", "onward"]


def groups() -> list[Group]:
    catcher = Group("catcher", retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff.exponential(0.02)))
    watcher = Group("watcher", concurrency=1)

    @catcher.on(Thrown)
    async def catch(event: Thrown, ctx: Context) -> None:
        match event.how:
            case "twice" if ctx.attempt == 1:
                raise ValueError("slipped")
            case "never":
                raise ValueError(f"missed the {ctx.attempt}.")
            case "reject":
                raise Reject("no ball")
            case "later" if ctx.attempt < ATTEMPTS:
                raise RetryLater(0.03, "not looking")
            case "cancelled":
                raise asyncio.CancelledError
        await ctx.publish(Caught(how=event.how, attempt=ctx.attempt), delay=0.05 if event.how == "onward" else None)

    @watcher.on(Thrown, Caught)
    async def watch(event: Event, ctx: Context) -> None:
        return

    return [catcher, watcher]


async def throw(bus: EventBus) -> None:
    for number, way in enumerate(WAYS):
        await bus.publish(Thrown(how=way), priority=1 + number, delay=0.05 if way == "delayed" else None)
    await bus.publish(Thrown(how="well"), organization="acme")
    bad = envelop(Thrown(how="well"))._replace(data=b'{"how": 1}')
    await bus.transport.append([Outgoing(bad), Outgoing(bad._replace(id=bad.id[:-4] + "0000", type="ball.lost"))])


def outcomes(finished: list[Finished]) -> Counter[tuple[object, ...]]:
    """How often each execution ended in each way."""
    return Counter(
        (
            done.group,
            done.envelope
            and (done.envelope.type, done.envelope.data, done.envelope.priority, done.envelope.organization),
            done.envelope is not None and done.envelope.causation_id is not None,
            done.delivery.attempt,
            type(done.outcome).__name__,
            done.outcome.failure.error if isinstance(done.outcome, Dead) else "",
        )
        for done in finished
    )


@asynccontextmanager
async def working(bus: EventBus) -> AsyncIterator[list[Finished]]:
    finished: list[Finished] = []
    worker = Worker(bus, groups(), listeners=[finished.append])
    running = asyncio.create_task(worker.run(signals=False))
    try:
        yield finished
    finally:
        await worker.stop()
        await running


async def test_the_outcomes_are_those_of_redis(any_redis_url: str) -> None:
    memory = MemoryBus(groups())
    await throw(memory)
    await memory.drain()
    expected = outcomes(memory.finished)
    assert expected.total() > 30
    letters = {(letter.group, letter.error, letter.attempts) for letter in memory.dead()}
    async with EventBus(any_redis_url) as bus, working(bus) as finished:
        await throw(bus)
        await until(lambda: len(finished) >= expected.total())
    assert outcomes(finished) == expected
    async with EventBus(any_redis_url) as bus:
        found = {(letter.group, letter.error, letter.attempts) for letter in await bus.transport.dead_letters("ball")}
    assert found == letters
    assert len([done for done in finished if isinstance(done.outcome, Ack)]) == len(memory.completed(Thrown)) + len(
        memory.completed(Caught)
    )
