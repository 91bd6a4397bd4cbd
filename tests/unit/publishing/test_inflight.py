"""PublishSlots: bounded, and given in turn."""

import asyncio
import random
from collections.abc import Callable

from eventbus.publishing.inflight import PublishSlots
from tests.waiting import PATIENCE


async def work(places: PublishSlots, seconds: float, begun: Callable[[], None] = lambda: None) -> None:
    if not places.take():
        await places.take_in_turn()
    try:
        begun()
        await asyncio.sleep(seconds)
    finally:
        places.give_back()


async def test_no_more_than_the_limit_and_first_come_first_served() -> None:
    places = PublishSlots(3)
    order: list[int] = []
    most: list[int] = []

    async def one(number: int) -> None:
        def begun() -> None:
            order.append(number)
            most.append(len(places))

        await work(places, 0.001, begun)

    await asyncio.gather(*(one(number) for number in range(30)))
    assert max(most) == 3
    assert order == list(range(30))
    assert len(places) == 0


async def test_nobody_overtakes_those_who_wait() -> None:
    places = PublishSlots(1)
    assert places.take()
    waiting = asyncio.create_task(places.take_in_turn())
    await asyncio.sleep(0)
    places.give_back()  # kept for the one who waits, though it has not run since
    assert not places.take()
    await waiting
    places.give_back()
    assert places.take()


async def test_cancelled_at_any_point_nobody_takes_a_place_along() -> None:
    places, chance = PublishSlots(2), random.Random(1)
    for _ in range(50):
        tasks = [asyncio.create_task(work(places, 0.0001 * chance.randrange(3))) for _ in range(20)]
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(places) == 0


async def test_one_that_does_not_fit_lets_those_behind_it_in_when_it_goes() -> None:
    places = PublishSlots(10, 100)
    assert places.take(60)
    large, small = (asyncio.create_task(places.take_in_turn(size)) for size in (50, 40))
    await asyncio.sleep(0)
    assert not small.done(), "nobody overtakes"
    large.cancel()
    await asyncio.wait([large])
    await asyncio.wait_for(small, PATIENCE)
    assert (len(places), places.size) == (2, 100)
    places.give_back(60)
    places.give_back(40)
    assert places.take(1_000), "alone, however large"
