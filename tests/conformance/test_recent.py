"""The last things of something: in order, each once, no more than wanted, and not for ever."""

import asyncio

from eventbus.contract.broker import Broker
from eventbus.redis import RedisTransport
from eventbus.redis.links import Links
from tests.waiting import eventually, in_a_span


async def test_the_last_ones_are_kept_by_position(transport: Broker) -> None:
    await transport.recent.add("talk", {b"c": 3, b"a": 1}, keep=3, seconds=60)
    await transport.recent.add("talk", {b"b": 2, b"d": 4}, keep=3, seconds=60)
    assert await transport.recent.read("talk") == [b"b", b"c", b"d"]
    assert await transport.recent.read("other") == []


async def test_adding_again_changes_nothing_and_nobody_loses_anothers(transport: Broker) -> None:
    seen = {b"a": 1, b"b": 2}
    await transport.recent.add("talk", seen, keep=5, seconds=60)
    await asyncio.gather(
        transport.recent.add("talk", {**seen, b"c": 3}, keep=5, seconds=60),
        transport.recent.add("talk", {**seen, b"d": 4}, keep=5, seconds=60),
        transport.recent.add("talk", seen, keep=5, seconds=60),
    )
    assert await transport.recent.read("talk") == [b"a", b"b", b"c", b"d"]


async def test_nothing_is_added_by_nothing(transport: Broker) -> None:
    await transport.recent.add("talk", {}, keep=5, seconds=60)
    assert await transport.recent.read("talk") == []


async def test_it_is_not_kept_for_ever(transport: Broker) -> None:
    async def kept_for(seconds: float) -> None:
        name = f"talk {seconds}"

        async def forgotten() -> bool:
            return await transport.recent.read(name) == []

        await transport.recent.add(name, {b"a": 1}, keep=5, seconds=2 * seconds)
        await asyncio.sleep(1.2 * seconds)
        await transport.recent.add(name, {b"b": 2}, keep=5, seconds=2 * seconds)
        await asyncio.sleep(1.2 * seconds)
        assert await transport.recent.read(name) == [b"a", b"b"], "each addition keeps all for longer"
        await eventually(forgotten)

    await in_a_span(kept_for)


async def test_positions_far_up_keep_their_order(redis_transport: RedisTransport, raw: Links) -> None:
    far = 2**53
    await redis_transport.recent.add("far", {b"b": far, b"a": far - 1}, keep=2, seconds=1)
    assert await redis_transport.recent.read("far") == [b"a", b"b"]
    assert 0 < await raw.execute("PTTL", "eb:recent:far") <= 1000
