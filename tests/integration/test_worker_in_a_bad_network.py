"""A worker whose connections break all the time: each event runs once, with the attempts that its policy grants."""

import asyncio
import random
from collections import defaultdict
from functools import partial

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.redis import RedisTransport
from eventbus.redis.keys import group_keys
from eventbus.redis.link import Link
from tests.proxy import Proxy
from tests.samples import consumer, nothing_left
from tests.waiting import eventually, until

COUNT = 600


class Mailed(Event, type="post.mailed"):
    number: int


def attempts_of(number: int) -> list[int]:
    """What the handler below makes of it."""
    if number % 50 == 0:
        return [1, 2, 3, 4]
    return [1, 2, 3] if number % 7 == 0 else [1]


async def test_each_event_runs_once_and_nothing_is_left_behind(redis_url: str) -> None:
    chance = random.Random(1)
    attempts: dict[int, list[int]] = defaultdict(list)
    policy = RetryPolicy(attempts=4, backoff=Backoff.exponential(0.05))
    group = Group("postmen", retry=policy, concurrency=20, lease=2.0)

    @group.on(Mailed)
    async def carry(event: Mailed, ctx: Context) -> None:
        attempts[event.number].append(ctx.attempt)
        await asyncio.sleep(chance.choice((0.0, 0.001, 0.02)))
        if len(attempts_of(event.number)) > ctx.attempt or event.number % 50 == 0:
            raise ValueError("no")

    async with Proxy(redis_url) as proxy, EventBus(proxy.url, publish_timeout=30.0) as bus:
        worker = Worker(bus, [group])
        working = asyncio.create_task(worker.run())

        asked = published = 0

        async def publish(event: Mailed) -> None:
            nonlocal asked, published
            asked += 1
            await bus.publish(event, delay=0.1 * (event.number % 2))
            published += 1

        def through() -> int:
            return published + sum(map(len, attempts.values()))

        async def break_it() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0.02, 0.2))
                wanted, stored = through() + 2, asked
                proxy.slice_size = chance.choice((None, 7, 1))
                chance.choice((proxy.cut, proxy.lose_next_reply))()
                await until(partial(reached, wanted, stored))  # however slow the machine, no publish meets a third

        def reached(count: int, stored: int) -> bool:
            return through() >= count and published >= stored  # what handlers do is no help to a publish that waits

        breaking = asyncio.create_task(break_it())
        for start in range(0, COUNT, 20):
            batch = [Mailed(number=number) for number in range(start, start + 20)]
            await asyncio.gather(*map(publish, batch))
        breaking.cancel()
        proxy.slice_size = None
        expected = {number: attempts_of(number) for number in range(COUNT)}
        await until(lambda: len(attempts) == COUNT and all(len(attempts[n]) >= len(expected[n]) for n in expected), 60)
        await worker.stop()
        await working
    assert attempts == expected
    await assert_at_rest(redis_url)


async def assert_at_rest(url: str) -> None:
    transport, raw = RedisTransport(url), Link(url, timeout=5, name="test")
    try:
        reader = consumer("heir", group="postmen", stream="post", lease=0.1)
        await eventually(lambda: nothing_left(transport, reader))
        letters = await transport.dead_letters("post", limit=COUNT)
        assert sorted(int(letter.fields[b"data"][len(b'{"number":') : -1]) for letter in letters) == [
            number for number in range(COUNT) if number % 50 == 0
        ]
        assert await raw.execute("EXISTS", *group_keys("eb", "post", "postmen")) == 0
        assert await raw.execute("XLEN", "eb:{post}:stream") == COUNT, "each was stored once"
    finally:
        await transport.close()
        await raw.close()
