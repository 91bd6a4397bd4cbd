"""An answer in time, whatever the work does."""

import asyncio

import pytest

from handlers.common.deadline import within
from tests.stopwatch import Stopwatch
from tests.waiting import PATIENCE


async def test_what_comes_in_time_is_returned_or_raised() -> None:
    async def work(result: object) -> object:
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    assert await within(1, work(5)) == 5
    with pytest.raises(KeyError):
        await within(1, work(KeyError()))


async def test_work_that_resists_is_left_behind() -> None:
    let_go = asyncio.Event()
    ended = asyncio.Event()

    async def resist() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await let_go.wait()
            ended.set()
            raise RuntimeError("nobody hears this") from None

    began = Stopwatch()
    with pytest.raises(TimeoutError):
        await within(0.05, resist())
    assert began.seconds < 5
    assert not ended.is_set()
    let_go.set()
    await asyncio.wait_for(ended.wait(), PATIENCE)


async def test_who_gives_up_takes_the_work_along() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    waiting = asyncio.create_task(within(60, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(cancelled.wait(), PATIENCE)
