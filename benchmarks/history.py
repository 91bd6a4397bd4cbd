"""`python -m benchmarks.history`: how fast the `history` group records while others work, and what an event costs.

alone    a backlog, and nothing else at work: the most that one recording worker gets through
beside   a publisher at a steady rate, and a group that handles every event in a process of its own

Rates depend on what else the machine does; processor time for each event does so much less.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated, NamedTuple

import asyncpg
import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.running.processes import cpu_seconds
from benchmarks.running.servers import flush, machine, server
from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.embedded import EmbeddedPostgres
from eventbus.postgres import apply, load
from eventbus.process.logs import configure
from eventbus.process.loop import run
from eventbus.roles.history_group import recorder

CHUNK = 500  # events that are published at a time
PATIENCE = 120.0  # seconds


class Happened(Event, type="bench.happened"):
    """As large as the events of the application."""

    number: int
    lead_id: str = "0199f3a5-0000-7000-8000-000000000000"
    text: str = "something that somebody did, in a sentence of the usual length, and then a little more of it"


class Figures(NamedTuple):
    events: int
    seconds: float
    lag: float  # seconds from the last publish until the last event was recorded
    cpu: dict[str, float]  # seconds, by process


class Costs:
    """Processor time of several processes from now on. PostgreSQL's is the sum over the sessions of the moment."""

    def __init__(self, redis: int, postgres: Path, **workers: "subprocess.Popen[bytes] | None") -> None:
        self._postgres = postgres
        self._pids = {name: process.pid for name, process in workers.items() if process is not None}
        self._pids["Redis"] = redis
        self._before = self._now()

    def _now(self) -> dict[str, float]:
        spent = {name: _cpu(pid) for name, pid in self._pids.items()}
        return spent | {"PostgreSQL": sum(map(_cpu, _sessions(self._postgres)))}

    def spent(self) -> dict[str, float]:
        now = self._now()
        return {name: now[name] - before for name, before in self._before.items()}


async def _measure(redis_url: str, database_url: str, postgres: Path, events: int, rate: int | None) -> Figures:
    """With a rate, history is recorded beside other work; without one, alone, from what was published before."""
    await flush(redis_url)
    connection = await asyncpg.connect(database_url)
    await connection.execute("TRUNCATE eventbus_events, eventbus_executions")
    try:
        async with EventBus(redis_url) as bus:
            with _process("--record", redis_url, database_url) as recording, _beside(rate, redis_url) as handling:
                await _warm(bus, connection)
                if rate is None:
                    await bus.groups.pause("history")
                    await asyncio.sleep(2)
                    await _publish(bus, events, None)
                costs = Costs(await _pid(redis_url), postgres, recording=recording, handling=handling)
                began = time.perf_counter()
                if rate is None:
                    await bus.groups.resume("history")
                else:
                    await _publish(bus, events, rate)
                published = time.perf_counter()
                while (found := await _count(connection) - 1) < events:
                    if time.perf_counter() - published > PATIENCE:
                        raise SystemExit(f"{found:,} of {events:,} recorded in time")
                    await asyncio.sleep(0.05)
                ended = time.perf_counter()
                return Figures(events, ended - began, ended - published, costs.spent())
    finally:
        await connection.close()


async def _publish(bus: EventBus, events: int, rate: int | None) -> None:
    began = time.perf_counter()
    for start in range(0, events, CHUNK):
        await bus.publish_many([Happened(number=n) for n in range(start, min(start + CHUNK, events))], key="lead")
        if rate is not None:
            await asyncio.sleep(max(0.0, began + (start + CHUNK) / rate - time.perf_counter()))


async def _warm(bus: EventBus, connection: asyncpg.Connection) -> None:
    """Wait until the workers are up."""
    await bus.publish(Happened(number=-1))
    while not await _count(connection):
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)


async def _count(connection: asyncpg.Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM eventbus_events")
    return count


async def _pid(redis_url: str) -> int:
    async with Redis.from_url(redis_url, protocol=2) as client:
        return int((await client.info("server"))["process_id"])


@contextmanager
def _process(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.history", *arguments])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _beside(rate: int | None, redis_url: str) -> Iterator["subprocess.Popen[bytes] | None"]:
    if rate is None:
        yield None
        return
    with _process("--handle", redis_url) as process:
        yield process


def _sessions(folder: Path) -> list[int]:
    """The postmaster and its children, as they are now."""
    master = int(next(folder.rglob("postmaster.pid")).read_text(encoding="utf-8").split()[0])
    children = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _parent(path) == master]
    return [master, *children]


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _cpu(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except OSError:  # a child of PostgreSQL that has ended
        return 0.0


async def _record(redis_url: str, database_url: str) -> None:
    async with EventBus(redis_url, database=database_url, history=timedelta(days=365)) as bus:
        await Worker(bus, [recorder()], relay=False).run()


async def _handle(redis_url: str) -> None:
    group = Group("others", concurrency=100)

    @group.on(Happened)
    async def handle(_event: Happened, _ctx: Context) -> None:
        return

    async with EventBus(redis_url) as bus:
        await Worker(bus, [group]).run()


def main(
    events: Annotated[int, typer.Option(help="Events of each measurement.")] = 100_000,
    rate: Annotated[int, typer.Option(help="Events a second that are published beside the others.")] = 10_000,
    record: Annotated[tuple[str, str] | None, typer.Option(hidden=True)] = None,
    handle: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure how fast history is recorded."""
    configure("console", level=40)
    if record is not None:
        run(_record(*record))
        return
    if handle is not None:
        run(_handle(handle))
        return
    table = Table("", "events/s", "behind, s", "microseconds of processor time for each event", title=f"{machine()}")
    with (
        server() as redis_url,
        tempfile.TemporaryDirectory(prefix="eventbus-bench-") as folder,
        EmbeddedPostgres(Path(folder)) as postgres,
    ):
        run(_migrate(postgres.url))
        for name, wanted in (("alone", None), ("beside", rate)):
            figures = run(_measure(redis_url, postgres.url, Path(folder), events, wanted))
            costs = ", ".join(f"{who} {spent / events * 1e6:.0f}" for who, spent in figures.cpu.items() if spent)
            table.add_row(name, f"{events / figures.seconds:,.0f}", f"{figures.lag:.1f}", costs)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


async def _migrate(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await apply(connection, load("eventbus", files("eventbus.postgres") / "migrations"))
    finally:
        await connection.close()


if __name__ == "__main__":
    typer.run(main)
