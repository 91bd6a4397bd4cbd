"""Fault 10: the network between the processes and Redis is slow, breaks, swallows replies or delivers single bytes."""

import asyncio
from collections.abc import Callable

import pytest

from eventbus import EventBus
from eventbus.consuming.consumer import READ_WAIT
from eventbus.redis import COMMAND_TIMEOUT
from tests.faults.conftest import ArenaFactory
from tests.faults.history import check
from tests.faults.jobs import ATTEMPTS
from tests.proxy import Proxy
from tests.stopwatch import Stopwatch


def _delay(proxy: Proxy) -> None:
    proxy.latency = 0.03


def _slice(proxy: Proxy) -> None:
    proxy.slice_size = 1


def _reset(proxy: Proxy) -> None:
    proxy.cut()


def _lose_reply(proxy: Proxy) -> None:
    proxy.lose_next_reply()


TROUBLES: list[Callable[[Proxy], None]] = [_delay, _slice, _reset, _lose_reply]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_each_event_is_stored_once_and_done_once_though_the_network_is_bad(
    trouble: Callable[[Proxy], None], arena_on: ArenaFactory, any_redis_url: str
) -> None:
    async with Proxy(any_redis_url) as theirs, Proxy(any_redis_url) as ours:
        arena = arena_on(any_redis_url, environment={"FAULTS_REDIS": theirs.url})
        async with EventBus(ours.url) as bus:
            arena.fleet.start()
            warm_up = await arena.at_work(bus)
            publishing = asyncio.create_task(arena.publish_all(bus, range(1, 201), per_second=100))
            while not publishing.done():
                trouble(theirs)
                trouble(ours)
                await asyncio.sleep(0.25)
            theirs.latency, theirs.slice_size = 0.0, None
            theirs.lose_no_more()
            ours.lose_no_more()
            observed = await arena.settled(bus, warm_up + 200)
        check(observed, attempts=ATTEMPTS)
        assert all(process.poll() is None for process in arena.fleet.processes)


async def test_a_half_open_connection_is_noticed_and_what_it_swallowed_is_read_again(
    arena_on: ArenaFactory, redis_url: str
) -> None:
    """Nothing passes and nobody is told, as behind a firewall that has forgotten the connections."""
    async with Proxy(redis_url) as proxy:
        arena = arena_on(redis_url, environment={"FAULTS_REDIS": proxy.url})
        async with EventBus(redis_url) as bus:
            arena.fleet.start()
            warm_up = await arena.at_work(bus)
            await arena.settled(bus, warm_up)
            proxy.blackhole()
            await arena.publish_all(bus, range(1, 21), per_second=1000)
            swallowed_at = asyncio.get_running_loop().time()
            with Stopwatch() as noticing:
                await arena.runs(warm_up + 20)
            assert asyncio.get_running_loop().time() - swallowed_at > 0.5, "there was no half-open connection"
            assert noticing.seconds < READ_WAIT + COMMAND_TIMEOUT + 5.0
            check(await arena.settled(bus, warm_up + 20), attempts=ATTEMPTS)
