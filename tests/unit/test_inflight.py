"""Calls under way: bounded, served in turn, ended in time."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from eventbus.inflight import Calls


async def call(flight: Calls, seconds: float, begun: Callable[[], None] = lambda: None) -> str:
    loop = asyncio.get_running_loop()
    mine = flight.begin(loop, loop.time()) or await flight.begin_in_turn()
    begun()
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError as cancelled:
        raise flight.verdict(mine, cancelled) from None
    finally:
        flight.end(mine)
    return "done"


async def test_each_ends_in_its_own_time() -> None:
    flight = Calls(100, 0.3)
    began = time.monotonic()
    first = asyncio.create_task(call(flight, 9))
    await asyncio.sleep(0.15)
    second = asyncio.create_task(call(flight, 9))
    with pytest.raises(TimeoutError):
        await first
    assert time.monotonic() - began >= 0.28
    assert not second.done()
    with pytest.raises(TimeoutError):
        await second
    assert 0.43 <= time.monotonic() - began <= 1.5
    assert len(flight) == 0


async def test_no_more_than_the_limit_and_first_come_first_served() -> None:
    flight = Calls(3, 10)
    order: list[int] = []
    most: list[int] = []

    async def one(number: int) -> None:
        def begun() -> None:
            order.append(number)
            most.append(len(flight))

        await call(flight, 0.001, begun)

    await asyncio.gather(*(one(number) for number in range(30)))
    assert max(most) == 3
    assert order == list(range(30))


async def test_cancelled_at_any_point_nobody_takes_a_place_along() -> None:
    flight, chance = Calls(2, 10), random.Random(1)
    for _ in range(50):
        tasks = [asyncio.create_task(call(flight, 0.0001 * chance.randrange(3))) for _ in range(20)]
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(flight) == 0


async def test_a_task_that_was_cancelled_before_can_still_run_out_of_time() -> None:
    """In the clean-up after a cancellation, for example."""
    flight = Calls(1, 0.05)

    async def clean_up() -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            with pytest.raises(TimeoutError):
                await call(flight, 9)
        return "cleaned up"

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned up"


async def test_a_cancellation_from_outside_goes_first() -> None:
    flight = Calls(1, 0.05)
    task = asyncio.create_task(call(flight, 9))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    loop.call_later(0.0501, task.cancel)
    time.sleep(0.06)  # noqa: ASYNC251 - both come due at once
    with pytest.raises((asyncio.CancelledError, TimeoutError)):
        await task
    assert len(flight) == 0
