"""Many at a time, or one alone."""

import asyncio

import pytest

from eventbus.consuming import suspects as module
from eventbus.consuming.suspects import Isolation
from tests.waiting import PATIENCE


async def test_many_run_at_a_time() -> None:
    isolation = Isolation()
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            await isolation.enter()


async def test_the_one_alone_waits_for_those_who_run() -> None:
    isolation = Isolation()
    await isolation.enter()
    await isolation.enter()
    alone = asyncio.create_task(isolation.alone().__aenter__())
    isolation.leave()
    await asyncio.sleep(0.01)
    assert not alone.done()
    isolation.leave()
    await asyncio.wait_for(alone, PATIENCE)


async def test_nobody_starts_while_one_is_alone_or_waits_to_be() -> None:
    isolation = Isolation()
    await isolation.enter()
    order: list[str] = []

    async def alone() -> None:
        async with isolation.alone():
            order.append("alone")

    async def enter() -> None:
        await isolation.enter()
        order.append("entered")

    tasks = [asyncio.create_task(alone()), asyncio.create_task(enter())]
    await asyncio.sleep(0.01)
    assert order == []
    isolation.leave()
    await asyncio.gather(*tasks)
    assert order == ["alone", "entered"]


async def test_two_who_want_to_be_alone_take_turns() -> None:
    isolation = Isolation()
    inside = 0

    async def alone() -> None:
        nonlocal inside
        async with isolation.alone():
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.01)
            inside -= 1

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(alone() for _ in range(3)))
        await isolation.enter()


async def test_the_door_opens_again_after_an_error_and_after_a_cancellation() -> None:
    isolation = Isolation()

    async def fail() -> None:
        async with isolation.alone():
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        await fail()
    await isolation.enter()
    waiting = asyncio.create_task(isolation.alone().__aenter__())
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    async with asyncio.timeout(PATIENCE):
        await isolation.enter()


async def test_a_slow_handler_does_not_stop_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    isolation = Isolation()
    await isolation.enter()
    async with asyncio.timeout(PATIENCE), isolation.alone():
        pass
