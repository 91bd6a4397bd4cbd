"""`python -m benchmarks.sockets`: many sockets open, and messages said on them, each answered on its own.

2,000 sockets of as many users, 1,000 messages in 10 s, a workflow that takes 20 ms. Measured are: how long an answer
takes beyond those 20 ms, from the moment that its message was due; whether an answer was lost, came twice, or came to
another's socket; what gateway and workers use, and what the gateway uses while nobody says anything.

Gateway, workers, workflow and servers are processes of their own; the clients are this one.
"""

import asyncio
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import asyncpg
import typer
from rich.console import Console

from benchmarks.gateway import module_process, port_of
from benchmarks.programs import workflow
from benchmarks.programs.chatting import Client, Crowd
from benchmarks.running.processes import cpu_seconds, resident_bytes
from benchmarks.running.servers import machine, server
from eventbus.embedded import EmbeddedPostgres
from eventbus.process.loop import run
from gateway.callers.auth import make_token

ORGANIZATION = "org-1"
SECRET = "a secret of the benchmarks, 32 bytes or more"
P99 = 250.0  # ms that is wanted at most, beyond the workflow's own time
SPARE_FILES = 200
WARM_UP = 20  # messages


@dataclass(frozen=True)
class House:
    """The processes that are measured."""

    url: str
    database_url: str
    gateway: int
    workers: list[int]

    def working(self) -> float:
        """Seconds of processor time that all workers have taken."""
        return sum(map(cpu_seconds, self.workers))


@dataclass(frozen=True)
class Figures:
    """`p50` to `max`: milliseconds beyond the workflow's time. `…_cpu`: seconds of a process for one message.
    `gateway_bytes`: for one socket. `opening`: seconds for all of them. `idle`: the share of a core that the gateway
    takes with all sockets open and nothing said."""

    sockets: int
    messages: int
    seconds: float
    answered: int
    lost: int
    repeated: int
    crossed: int
    errors: list[str]
    closed: int
    queued_p99: float
    p50: float
    p95: float
    p99: float
    max: float
    gateway_cpu: float
    worker_cpu: float
    gateway_bytes: float
    opening: float
    idle: float | None

    @property
    def good(self) -> bool:
        return not (self.lost or self.repeated or self.crossed or self.errors or self.closed)


def measure(sockets: int, messages: int, seconds: float, idle: float, workers: int) -> Figures:
    """Everything, on servers that are started for it. Blocks."""
    _allow_files(sockets + SPARE_FILES)
    with tempfile.TemporaryDirectory(prefix="eventbus-bench-") as folder, house(Path(folder), workers) as built:
        return run(_measure(built, sockets, messages, seconds, idle))


async def _measure(built: House, sockets: int, messages: int, seconds: float, idle: float) -> Figures:
    clients = await settle(built.database_url, sockets)
    async with Crowd(built.url, clients[:1]) as crowd:
        await crowd.talk(WARM_UP, 1.0)  # opens connections and fills caches
    memory, began = resident_bytes(built.gateway), time.perf_counter()
    async with Crowd(built.url, clients) as crowd:
        opening = time.perf_counter() - began
        grown = (resident_bytes(built.gateway) - memory) / sockets
        before = cpu_seconds(built.gateway)
        await asyncio.sleep(idle)
        share = (cpu_seconds(built.gateway) - before) / idle if idle else None
        gateway, worker = cpu_seconds(built.gateway), built.working()
        tally = await crowd.talk(messages, seconds, first=WARM_UP)
        gateway, worker = cpu_seconds(built.gateway) - gateway, built.working() - worker
    waits = [wait - workflow.SECONDS for wait in tally.waits()]
    return Figures(
        sockets,
        len(tally.said),
        seconds,
        answered=len(waits),
        lost=tally.lost,
        repeated=tally.repeated,
        crossed=tally.crossed,
        errors=tally.errors[:5],
        closed=tally.closed,
        queued_p99=_percentile(tally.queues(), 99),
        p50=_percentile(waits, 50),
        p95=_percentile(waits, 95),
        p99=_percentile(waits, 99),
        max=_percentile(waits, 100),
        gateway_cpu=gateway / messages,
        worker_cpu=worker / messages,
        gateway_bytes=grown,
        opening=opening,
        idle=share,
    )


def _percentile(found: list[float], percent: float) -> float:
    """In ms; 0 if `found` is empty."""
    return found[max(0, math.ceil(len(found) * percent / 100) - 1)] * 1e3 if found else 0.0


async def settle(database_url: str, count: int) -> list[Client]:
    """Create so many users, each with an agent."""
    agents = [(ORGANIZATION, uuid.uuid4(), f"user-{number}", "Echo") for number in range(count)]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.executemany(
            "INSERT INTO agents (organization, id, user_id, name) VALUES ($1, $2, $3, $4)", agents
        )
    finally:
        await connection.close()
    return [
        Client(make_token(SECRET, user=user, organization=ORGANIZATION), str(agent)) for _, agent, user, _ in agents
    ]


@contextmanager
def house(folder: Path, workers: int) -> Iterator[House]:
    """Servers, migrated, and the processes; logs go into files in the folder."""
    with ExitStack() as stack:
        redis_url, postgres = stack.enter_context(server()), stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        stand_in = stack.enter_context(module_process("benchmarks.programs.workflow", stdout=subprocess.PIPE))
        assert stand_in.stdout is not None
        environment = {
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_DATABASE_URL": postgres.url,
            "EVENTBUS_JWT_SECRET": SECRET,
            "EVENTBUS_SPOOL_PATH": str(folder / "contingency-log.jsonl"),
            "EVENTBUS_LOG_FORMAT": "json",
            "EVENTBUS_PORT": "0",
            "EVENTBUS_DRAIN_SECONDS": "0",
            "N8N_BASE_URL": f"http://127.0.0.1:{int(stand_in.stdout.readline())}",
        }
        migrate = [sys.executable, "-m", "eventbus.cli", "migrate"]
        subprocess.run(migrate, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)

        def started(module: str, log: Path) -> subprocess.Popen[bytes]:
            file = stack.enter_context(log.open("wb"))
            return stack.enter_context(module_process(module, stderr=file, environment=environment))

        gateway = started("gateway", folder / "gateway.log")
        working = [started("consumers", folder / f"worker-{number}.log").pid for number in range(workers)]
        port = port_of(gateway, folder / "gateway.log")
        yield House(f"http://127.0.0.1:{port}", postgres.url, gateway.pid, working)


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard) if hard > 0 else count, hard))


def main(
    *,
    sockets: Annotated[int, typer.Option(min=1, help="Open at a time.")] = 2_000,
    messages: Annotated[int, typer.Option(min=1)] = 1_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="In which they are said.")] = 10.0,
    idle: Annotated[float, typer.Option(min=0, help="Seconds of silence that are measured before.")] = 30.0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Measure, and show. Exit 1 if anything was lost, came twice or to another's socket, or took too long."""
    figures = measure(sockets, messages, seconds, idle, workers)
    if as_json:
        typer.echo(json.dumps({"machine": machine(), **asdict(figures)}, indent=2))
    else:
        _show(figures)
    if not figures.good or figures.p99 > P99:
        raise typer.Exit(1)


def _show(figures: Figures) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(
        f"{figures.sockets:,} sockets, {figures.messages:,} messages in {figures.seconds:g} s, {machine()}\n"
        f"answered {figures.answered:,}; lost {figures.lost}, twice {figures.repeated}, crossed {figures.crossed}, "
        f"errors {len(figures.errors)}, sockets closed {figures.closed}\n"
        f"to the answer, beyond the workflow's {workflow.SECONDS * 1e3:g} ms: p50 {figures.p50:.1f} ms, "
        f"p95 {figures.p95:.1f}, p99 {figures.p99:.1f}, max {figures.max:.1f}; to the receipt: p99 "
        f"{figures.queued_p99:.1f}\n"
        f"processor time of a message: gateway {figures.gateway_cpu * 1e3:.2f} ms, workers "
        f"{figures.worker_cpu * 1e3:.2f} ms\n"
        f"a socket: {figures.gateway_bytes / 1024:.1f} KiB; all opened in {figures.opening:.1f} s"
    )
    if figures.idle is not None:
        console.print(f"the gateway, with nothing said: {figures.idle:.2%} of a core")


if __name__ == "__main__":
    typer.run(main)
