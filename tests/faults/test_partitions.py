"""A stream gets more logs while it is used, and workers are killed meanwhile: nothing is lost by that."""

import asyncio
from collections import Counter
from pathlib import Path

from eventbus import EventBus
from eventbus.redis.inspection import read_streams
from eventbus.redis.router import Router
from tests.faults.fleet import Fleet
from tests.faults.history import Reader
from tests.faults.talking import STUMBLES, Said
from tests.servers import OwnRedis
from tests.waiting import eventually

ROUND = 500  # events
KILLS = 2
HELD = 200  # events that a worker which is killed may have begun, and not settled yet


async def test_nothing_is_lost_while_a_stream_grows(own_redis: OwnRedis, redis_binary: Path, tmp_path: Path) -> None:
    url = own_redis(binary=redis_binary).url
    history = tmp_path / "history"
    history.mkdir()
    fleet = Fleet(tmp_path, "tests.faults.talking", {"FAULTS_REDIS": url, "FAULTS_HISTORY": str(history)})
    written = Reader(history)
    count = 0

    async def publish(bus: EventBus) -> None:
        nonlocal count
        events = [Said(who=f"key-{number % 40}", number=number) for number in range(count, count + ROUND)]
        count += ROUND
        await asyncio.gather(*(bus.publish(event, key=event.who) for event in events))

    def done() -> set[object]:
        return {line["number"] for line in written.lines() if line["what"] == "ended"}

    async def half_done() -> bool:
        return len(done()) >= count - ROUND / 2

    try:
        for _ in range(2):
            fleet.start("plain")
        async with EventBus(url) as old:  # it was told of no partitions, and publishes all the same
            await publish(old)
            for partitions in (4, 16):
                async with EventBus(url, partitions={"talk": partitions}) as bus:
                    await asyncio.gather(publish(bus), publish(old))
                await eventually(half_done)
                fleet.kill(fleet.processes[0])
                fleet.start("plain")
                await asyncio.gather(publish(old), publish(old))

            async def all_done() -> bool:
                return len(done()) == count

            await eventually(all_done)
        router = Router(url, timeout=5, name="test")

        async def settled() -> bool:
            [state] = await read_streams(router, "eb", ["talk"])
            assert (state.length, state.dead, state.partitions) == (count, 0, 16)
            return all(group.pending == 0 and group.lag == 0 for group in state.groups)

        await eventually(settled)
        await router.close()
    finally:
        fleet.end()
    ended = Counter(line["number"] for line in written.lines() if line["what"] == "ended")
    begun = Counter(line["number"] for line in written.lines() if line["what"] == "begun")
    again = [number for number, times in begun.items() if times > (3 if int(str(number)) % STUMBLES == 0 else 1)]
    assert len(again) <= KILLS * HELD, "no more than what was in the hands of those that were killed"
    assert sum(times - 1 for times in ended.values()) <= KILLS * HELD
