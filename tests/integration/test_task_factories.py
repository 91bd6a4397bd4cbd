"""Programs set task factories on their loops. The bus works with any of them: on Redis, and in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest
import uvloop

from eventbus import Batch, Context, Event, EventBus, Group, Resource, Use, Worker
from tests import factories
from tests.waiting import PATIENCE, until

SEEN: ContextVar[int | None] = ContextVar("seen", default=None)
FEW, MANY = 40, 900  # MANY: more than a stack could hold, if each task ran inside of the one before it


class Counted(Event, type="factories.counted"):
    n: int


class Shop:
    """Handlers of every kind: that never wait, that wait, of batches, of the events that killed a worker."""

    def __init__(self) -> None:
        self.fast, self.slow, self.batched = (Group(name, concurrency=MANY) for name in ("fast", "slow", "batched"))
        self.done: dict[str, set[int]] = {"fast": set(), "slow": set(), "batched": set()}
        self.mixed: list[int] = []
        self.used: set[str] = set()
        self.fast.on(Counted)(self.count)
        self.slow.on(Counted)(self.wait)
        self.batched.on_batch(Counted, max_size=7, max_wait=0.01)(self.collect)

    @property
    def groups(self) -> list[Group]:
        return [self.fast, self.slow, self.batched]

    async def count(self, event: Counted, _ctx: Context) -> None:
        if SEEN.get() is not None:
            self.mixed.append(event.n)
        SEEN.set(event.n)
        self.done["fast"].add(event.n)

    async def wait(self, event: Counted, ctx: Context) -> None:
        self.used.add(await ctx.use(LAMP))
        if SEEN.get() is not None:
            self.mixed.append(event.n)
        SEEN.set(event.n)
        await asyncio.sleep(0)
        self.done["slow"].add(event.n)

    async def collect(self, batch: Batch[Counted]) -> None:
        self.done["batched"].update(event.n for event in batch.events)

    def has_done(self, count: int) -> bool:
        return all(len(done) == count for done in self.done.values())


@asynccontextmanager
async def _lit(_use: Use) -> AsyncIterator[str]:
    yield "lit"


LAMP = Resource("lamp", _lit)


# uvloop hands `context=` to every factory, so that nothing at all runs there with one of two arguments.
LOOPS = [(name, asyncio.new_event_loop) for name in factories.ALL] + [("eager", uvloop.new_event_loop)]


@pytest.mark.parametrize(("name", "loop_factory"), LOOPS)
@pytest.mark.parametrize("server", ["memory", "redis"])
def test_every_event_is_handled_whatever_makes_the_tasks(
    server: str, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop], request: pytest.FixtureRequest
) -> None:
    url = "memory://" if server == "memory" else request.getfixturevalue("redis_url")
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        shop = runner.run(_open(url, factories.ALL[name]))
    assert (shop.mixed, shop.used) == ([], {"lit"})


async def _open(url: str, factory: factories.Factory) -> Shop:
    asyncio.get_running_loop().set_task_factory(factory)
    shop = Shop()
    async with EventBus(url) as bus:
        worker = Worker(bus, shop.groups)
        running = asyncio.create_task(worker.run(signals=False))
        for n in range(FEW):
            await bus.publish(Counted(n=n))
        await until(lambda: shop.has_done(FEW))
        await bus.publish_many([Counted(n=n) for n in range(FEW, MANY)])
        await until(lambda: shop.has_done(MANY), timeout=PATIENCE)
        await worker.stop()
        await running
    return shop
