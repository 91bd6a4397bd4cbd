"""The bus for tests on a real database: inbox and outbox as in production, time as the test wants it."""

from eventbus import Backoff, Context, Event, Group, RetryPolicy
from eventbus.testing import MemoryBus


class Ordered(Event, type="bakery.ordered"):
    loaves: int


class Baked(Event, type="bakery.baked"):
    loaves: int


async def test_effects_and_events_of_a_transaction_come_once(migrated_url: str) -> None:
    bakery = Group("bakery", retry=RetryPolicy(attempts=3, backoff=Backoff.fixed(3600.0)))

    @bakery.on(Ordered)
    async def bake(event: Ordered, ctx: Context) -> None:
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO loaves VALUES ($1)", event.loaves)
            await tx.publish(Baked(loaves=event.loaves), delay=3600.0)
        if ctx.attempt == 1:
            raise ValueError("burnt, after it was committed")

    @bakery.on(Baked)
    async def sell(event: Baked, ctx: Context) -> None:
        return

    async with MemoryBus([bakery], database=migrated_url) as bus:
        async with bus.transaction() as tx:
            await tx.connection.execute("CREATE TABLE loaves (count int)")
            await tx.publish(Ordered(loaves=3))
        assert bus.published(Ordered) == []
        await bus.drain()
        assert bus.published(Ordered) == bus.completed(Ordered) == [Ordered(loaves=3)]
        assert bus.published(Baked) == bus.completed(Baked) == [Baked(loaves=3)]
        assert len(bus.finished) == 3
        assert 3600.0 <= bus.now < 7200.0
        async with bus.transaction() as tx:
            assert await tx.connection.fetchval("SELECT count(*) FROM loaves") == 1
