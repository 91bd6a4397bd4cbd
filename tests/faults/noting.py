"""One publisher that goes on whatever happens, and a group that notes what it is given: all in one process."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from eventbus import Context, Event, EventBus, Group, Unavailable
from eventbus.contract.codec import pairs
from eventbus.contract.partitions import logs_of
from eventbus.redis.keys import StreamKeys, stream_keys
from eventbus.redis.links import Links

PACE = 0.01  # seconds between publishes
KEYS_IN_ALL = 5
KEYS: StreamKeys = stream_keys("eb", "failover")


class Noted(Event, type="failover.noted"):
    number: int


class Publisher:
    """Publishes one after the other. `acknowledged`: when, by number; `ids`: of those events."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
        self.acknowledged: dict[int, float] = {}
        self.refused = 0

    def since(self, moment: float) -> set[int]:
        return {number for number, at in self.acknowledged.items() if at > moment}

    def until(self, moment: float) -> set[int]:
        return {number for number, at in self.acknowledged.items() if at < moment}

    @property
    def longest_pause(self) -> float:
        """Seconds between two acknowledgements."""
        moments = sorted(self.acknowledged.values())
        return max(after - before for before, after in pairwise(moments))

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                await self._bus.publish(Noted(number=number), key=f"key-{number % KEYS_IN_ALL}")
                self.acknowledged[number] = time.monotonic()
            except Unavailable:
                self.refused += 1
            await asyncio.sleep(PACE)


@asynccontextmanager
async def publishing(bus: EventBus) -> AsyncIterator[Publisher]:
    publisher = Publisher(bus)
    running = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        running.cancel()
        await asyncio.wait([running])


def noting(handled: set[int]) -> Group:
    """A group that adds the numbers that it is given."""
    group = Group("noting", lease=2.0)

    @group.on(Noted)
    async def note(event: Noted, _: Context) -> None:
        handled.add(event.number)

    return group


def in_order(told: list[int]) -> Group:
    """An ordered group that tells what it is given, as it is given."""
    group = Group("telling", lease=2.0, ordered=True)

    @group.on(Noted)
    async def tell(event: Noted, _: Context) -> None:
        told.append(event.number)
        await asyncio.sleep(PACE / 2)

    return group


async def stored(links: Links, partitions: int = 1) -> Counter[int]:
    """How often each number is in the stream."""
    logs = [stream_keys("eb", each).stream for each in logs_of("failover", partitions)]
    found = await links.pipeline([("XRANGE", each, "-", "+") for each in logs])
    entries = [entry for reply in found for entry in reply]
    return Counter(int(pairs(fields)[b"data"].partition(b":")[2][:-1]) for _, fields in entries)
