"""The tasks of the benchmark, for a library on asyncio."""

import argparse
import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, ClassVar

from .protocol import Done, Progress, Result, program, unheard
from .work import WARM_UP, Payload, Work, payload, percentiles

GRACE = 3.0  # seconds for a worker to end
SPIN = 0.0015  # seconds: a loop's timers tick in milliseconds, which is as long as what is measured


class Peer(ABC):
    """One library. An async context: its connections are open inside."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # the library first, then what its version also depends on
    settings: ClassVar[str]
    guarantees: ClassVar[str]
    at_once: ClassVar[int] = 50  # publishers at most: 500 of them open 500 connections, which costs each of these dear

    def __init__(self, url: str, concurrency: int, work: Work) -> None:
        self.url, self.concurrency, self.work = url, concurrency, work

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[object]:
        """Connected to Redis."""

    @abstractmethod
    def working(self) -> AbstractAsyncContextManager[object]:
        """The library's own worker runs inside, calling `work.run` for each event."""

    @abstractmethod
    async def publish(self, lead: Payload) -> None:
        """Returns when Redis has it."""


@asynccontextmanager
async def background(
    worker: Coroutine[Any, Any, object], stop: Callable[[], object] | None = None
) -> AsyncIterator[None]:
    """A worker that runs until `stop` ends it, or else is cancelled. Its failure is that of what goes on inside."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker)
        yield
        (stop or task.cancel)()
        while not (await asyncio.wait([task], timeout=GRACE))[0]:
            # A library's reader may swallow the one cancellation that it gets: then with all that it has started.
            for other in asyncio.all_tasks() - {asyncio.current_task()}:
                other.cancel()


async def publish(peer: Peer, count: int, tasks: int, done: Done, first: int = 0) -> Result:
    """So many tasks, each awaiting its receipts one after the other."""
    numbers, received = iter(range(first, first + count)), iter(range(1, count + 1))

    async def publisher() -> None:
        for number in numbers:
            await peer.publish(payload(number))
            done(next(received))

    began = time.perf_counter()
    await asyncio.gather(*(publisher() for _ in range(min(tasks, peer.at_once))))
    return {"events": count, "seconds": time.perf_counter() - began}


async def consume(peer: Peer, count: int, tasks: int = 0) -> Result:
    """Works off what is there, or at the same time what so many tasks publish."""
    finished = asyncio.Event()
    peer.work.expect(count, finished.set)
    began = time.perf_counter()
    async with peer.working():
        if tasks:
            await publish(peer, count, tasks, unheard)
        await finished.wait()
    return {"events": count, "seconds": peer.work.ended - began}


async def latency(peer: Peer, rate: float, seconds: float) -> Result:
    """An open loop: each event is sent when it is due, whatever happened to the ones before."""
    count, finished = int(rate * seconds), asyncio.Event()
    async with peer.working():
        peer.work.warm_up(finished.set)
        await publish(peer, WARM_UP, peer.at_once, unheard, first=count)
        await finished.wait()
        finished.clear()
        began = time.perf_counter() + 0.1
        peer.work.expect(count, finished.set, lambda number: began + number / rate)
        async with asyncio.TaskGroup() as sending:
            for number in range(count):
                while (early := began + number / rate - time.perf_counter()) > 0:
                    await asyncio.sleep(max(0.0, early - SPIN))
                sending.create_task(peer.publish(payload(number)))
        await finished.wait()
    return {"events": count, "rate": rate, **percentiles(peer.work.latencies)}


async def measure(kind: type[Peer], options: argparse.Namespace, done: Progress) -> Result:
    peer = kind(options.url, options.concurrency, Work(options.wait_ms / 1000, done))
    async with peer.opened():
        match options.task:
            case "publish":
                return await publish(peer, options.count, options.tasks, done)
            case "alone":
                return await publish(peer, options.count, 1, done)
            case "latency":
                return await latency(peer, options.rate, options.seconds)
            case task:
                return await consume(peer, options.count, options.tasks if task == "both" else 0)


def main(kind: type[Peer], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """The program."""

    def run(options: argparse.Namespace, done: Progress) -> Result:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(measure(kind, options, done))

    program(kind, run)
