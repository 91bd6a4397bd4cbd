"""`python -m benchmarks.sizing`: what one event costs the server, for docs/scaling.md: time, file, network, memory.

publish   many callers at once, each awaits his receipt
consume   one group, 100 at a time; a handler that does nothing, and one that waits 1 ms

The bytes hardly depend on the machine. Processor time does: this is of one core, beside a client on the same machine.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import median
from typing import Annotated, NamedTuple

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.running.servers import flush, machine, server
from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run

CALLERS = 500  # who publish at a time
AT_EASE = 2.0  # seconds until what was written is in the file


class Sized(Event, type="bench.sized"):
    """About 100 bytes of JSON."""

    number: int
    text: str = "something that somebody did, in a sentence of about the usual length"


class Cost(NamedTuple):
    """Of one event."""

    server: float  # µs of processor time
    client: float
    file: float  # bytes
    received: float  # by the server
    sent: float
    memory: float


class _Standing(NamedTuple):
    server: float
    client: float
    file: int
    received: int
    sent: int
    memory: int


async def _standing(client: "Redis") -> _Standing:
    here = time.process_time()
    info = await client.info("everything")
    spent = info["used_cpu_user"] + info["used_cpu_sys"]
    network = info["total_net_input_bytes"], info["total_net_output_bytes"]
    return _Standing(spent, here, info["aof_current_size"], *network, info["used_memory"])


async def _cost(url: str, events: int, work: Callable[[], Awaitable[object]]) -> Cost:
    async with Redis.from_url(url, protocol=2) as client:
        before = await _standing(client)
        await work()
        here = time.process_time()
        await asyncio.sleep(AT_EASE)
        after = (await _standing(client))._replace(client=here)
    spent = [(new - old) / events for new, old in zip(after, before, strict=True)]
    return Cost(spent[0] * 1e6, spent[1] * 1e6, *spent[2:])


async def _publish(bus: EventBus, events: int) -> None:
    numbers = iter(range(events))

    async def caller() -> None:
        for number in numbers:
            await bus.publish(Sized(number=number))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


async def _consume(bus: EventBus, events: int, name: str, seconds: float) -> None:
    group, left = Group(name, concurrency=100), events

    @group.on(Sized)
    async def handle(_event: Sized, _ctx: Context) -> None:
        nonlocal left
        if seconds:
            await asyncio.sleep(seconds)
        left -= 1
        if not left:
            await worker.stop()

    worker = Worker(bus, [group])
    await worker.run()


async def _measure(url: str, events: int, partitions: int) -> dict[str, Cost]:
    await flush(url)
    async with EventBus(url, partitions={"bench": partitions}) as bus:
        await _publish(bus, CALLERS)  # connections and scripts are there
        found = {"publish": await _cost(url, events, partial(_publish, bus, events))}
        waiting = events + CALLERS
        for name, seconds in (("nothing", 0.0), ("waiting", 0.001)):
            found[f"consume, {name}"] = await _cost(url, waiting, partial(_consume, bus, waiting, name, seconds))
    return found


def main(
    events: Annotated[int, typer.Option(help="Events of each measurement.")] = 20_000,
    partitions: Annotated[str, typer.Option(help="Of the stream, as '1,4,64': each is measured.")] = "1",
    rounds: Annotated[int, typer.Option(help="Of each, in turn; the median is told.")] = 1,
) -> None:
    """Measure what an event costs the server."""
    counts = [int(count) for count in partitions.split(",")]
    configure("console", level=40)
    table = Table(
        "", "server, µs", "client, µs", "file, B", "to the server, B", "from it, B", "memory, B", title=machine()
    )
    with server() as url:
        found: dict[str, list[Cost]] = {}
        for _ in range(rounds):
            for count in counts:
                for name, cost in run(_measure(url, events, count)).items():
                    of = f", {count} partitions" if len(counts) > 1 else ""
                    found.setdefault(name + of, []).append(cost)
        for name in sorted(found):
            table.add_row(name, *(f"{median(figures):,.1f}" for figures in zip(*found[name], strict=True)))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    typer.run(main)
