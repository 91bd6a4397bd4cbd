"""What a benchmark returns, and how it is timed."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

Tick = Callable[[int], None]  # called with the number of events done since the last call

# As in benchmarks/peers/drive/, so that all are measured alike.
WARM_UP = 200  # events that go ahead of an open loop: connections are opened, scripts loaded, code compiled
SPIN = 0.0015  # seconds before a due time without a timer: timers tick in ms, which is as long as what is measured
HEAD_START = 0.1  # seconds until the first event of an open loop is due


@dataclass(frozen=True)
class Figure:
    """Events per second of one contender in one round."""

    contender: str
    task: str
    events: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


class Stopwatch:
    """`with Stopwatch() as watch: …` then watch.seconds."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest measured value that this share of all values does not exceed (nearest rank)."""
    if not ascending:
        raise ValueError("no percentile of nothing: was anything measured?")
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


@dataclass(frozen=True)
class Latency:
    """Of an open loop: from the moment at which an event was due to be published to the start of its handler, in ms."""

    contender: str
    events: int
    rate: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, contender: str, rate: float, seconds: Sequence[float]) -> Self:
        ascending = sorted(second * 1e3 for second in seconds)
        p50, p95, p99 = (percentile(ascending, share) for share in (0.5, 0.95, 0.99))
        return cls(contender, len(ascending), rate, p50, p95, p99, ascending[-1])


class OpenLoop:
    """Event i is due at the start + i / rate, and sent then, whatever happened to those before it.

    A loop that waited for each would send less when things are slow, and so leave out the very moments that matter
    ("coordinated omission")."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.rate = rate
        self.count = int(rate * seconds)
        self.latencies: list[float] = []
        self._done = asyncio.Event()
        self._warm = asyncio.Event()
        self._ahead = 0
        self._began = 0.0

    def started(self, number: int) -> None:
        """The handler of this event starts now."""
        if not self._warm.is_set():
            self._ahead += 1
            if self._ahead == WARM_UP:
                self._warm.set()
            return
        self.latencies.append(time.perf_counter() - self._began - number / self.rate)
        if len(self.latencies) >= self.count:
            self._done.set()

    async def run(self, send: Callable[[int], Awaitable[object]], tick: Tick, patience: float = 30.0) -> None:
        """Warm up, send all, and wait until all started; TimeoutError if some have not `patience` seconds later."""
        await asyncio.gather(*(send(self.count + number) for number in range(WARM_UP)))
        async with asyncio.timeout(patience):
            await self._warm.wait()
        sending: set[asyncio.Task[object]] = set()
        self._began = time.perf_counter() + HEAD_START
        for number in range(self.count):
            due = self._began + number / self.rate
            while (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(0.0, wait - SPIN))
            sending.add(asyncio.ensure_future(_sent(send(number))))
            if number % 100 == 99:
                tick(100)
                sending = {task for task in sending if not task.done() or task.exception() is not None}
        await asyncio.gather(*sending)
        async with asyncio.timeout(patience):
            await self._done.wait()


async def _sent(sending: Awaitable[object]) -> object:
    return await sending
