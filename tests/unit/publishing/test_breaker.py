"""One try at a time while a server is away."""

import asyncio

import pytest

from eventbus.errors import Unavailable
from eventbus.publishing.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker
from tests.virtual import in_virtual_time

AWAY = Unavailable("Redis", "refused")


@in_virtual_time
async def test_it_admits_everybody_until_somebody_fails_and_again_when_somebody_succeeds() -> None:
    breaker = Breaker()
    assert all(breaker.admits() for _ in range(3))
    breaker.failed(AWAY, away=False)
    assert not breaker.admits()
    assert (breaker.open, breaker.away) == (True, False)
    assert (breaker.refusal().server, breaker.refusal().detail) == ("Redis", "refused")
    assert breaker.refusal() is not breaker.refusal()
    breaker.succeeded()
    assert all(breaker.admits() for _ in range(3))


@in_virtual_time
async def test_tries_become_rarer() -> None:
    breaker = Breaker()
    breaker.failed(AWAY, away=False)
    loop = asyncio.get_running_loop()
    tries: list[float] = []
    began = loop.time()
    while loop.time() - began < 1.0:
        if breaker.admits():
            tries.append(loop.time() - began)
        await asyncio.sleep(0.005)
    assert tries[0] >= FIRST_PAUSE - 0.01
    assert 2 <= len(tries) <= 5
    assert LONGEST_PAUSE == 1.0


@in_virtual_time
async def test_a_turn_comes_to_the_youngest_and_if_it_goes_away_to_another() -> None:
    breaker = Breaker()
    breaker.failed(AWAY, away=False)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await breaker.turn()
        woken.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
    assert woken == [1]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert woken == [1, 0], "nobody tried, so the next one is woken"


@pytest.mark.parametrize("news", ["away", "back"])
@in_virtual_time
async def test_news_wake_everybody(news: str) -> None:
    breaker = Breaker()
    breaker.failed(AWAY, away=False)
    waiting = [asyncio.create_task(breaker.turn()) for _ in range(10)]
    await asyncio.sleep(0)
    if news == "away":
        breaker.failed(AWAY, away=True)
    else:
        breaker.succeeded()
    async with asyncio.timeout(FIRST_PAUSE / 2):
        await asyncio.gather(*waiting)
