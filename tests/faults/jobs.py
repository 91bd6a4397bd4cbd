"""The application that the fault tests run: one group whose handler leaves a trace of everything that it does."""

import asyncio
import math
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from eventbus import Backoff, Batch, Context, Event, Group, Reject, RetryPolicy
from tests.faults.history import History

ATTEMPTS = 3
LEASE = 1.0  # seconds
# Nothing unique: duplicates are to be counted.
TABLES = """
CREATE TABLE effects (token int NOT NULL, pid int NOT NULL);
CREATE TABLE ticks (due timestamptz NOT NULL, pid int NOT NULL);
"""


class Job(Event, type="job.requested"):
    """`behaviour`: what the handler does before its effect: ok, fail, exit, killed, memory, stay, or one of these:

    sleep:SECONDS             waits; fail-after does so and fails
    gated:NAME                waits until the file `gate` of that name is there
    fail-if-frozen:NAME       does so, too, but fails if the process was stopped meanwhile; so does reject-if-frozen
    block:SECONDS             keeps the event loop; block-first does so in the first process that gets there
    """

    token: int
    behaviour: str = "ok"


class Noted(Event, type="job.noted"):
    """Published by the handler inside its transaction: it must come out exactly once for each effect, too."""

    token: int


def group(history: History) -> Group:
    jobs = Group(
        "jobs",
        retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff.exponential(0.1)),
        concurrency=20,
        lease=LEASE,
        timeout=float(os.environ.get("FAULTS_TIMEOUT", "30")),
        track=bool(os.environ.get("FAULTS_TRACK")),
        keep_completed=100,
    )

    @jobs.on(Job)
    async def run(event: Job, ctx: Context) -> None:
        history.record("run", token=event.token, attempt=ctx.attempt)
        await behave(event.behaviour)
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO effects VALUES ($1, $2)", event.token, os.getpid())
            await tx.publish(Noted(token=event.token))
        history.record("done", token=event.token, attempt=ctx.attempt)

    return jobs


def batches(history: History) -> Group:
    """The same group with a handler of batches: one transaction for all, and what fails does so by itself."""
    jobs = Group("jobs", retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff.fixed(0.1)), concurrency=2, lease=LEASE)

    @jobs.on_batch(Job, max_size=20, max_wait=0.05)
    async def run(batch: Batch[Job]) -> None:
        for item in batch:
            history.record("run", token=item.event.token, attempt=item.ctx.attempt, batch=len(batch))
        for item in batch:
            try:
                await behave(item.event.behaviour)
            except ValueError as error:
                item.fail(error)
        async with batch.transaction() as tx:
            for item in tx.items:
                if item.error is None:
                    await tx.connection.execute("INSERT INTO effects VALUES ($1, $2)", item.event.token, os.getpid())
                    await tx.outbox(item).publish(Noted(token=item.event.token))

    return jobs


def notes(history: History) -> Group:
    group = Group("notes", lease=LEASE)

    @group.on(Noted)
    async def note(event: Noted, ctx: Context) -> None:
        history.record("noted", token=event.token, event_id=ctx.event_id)

    return group


async def behave(behaviour: str) -> None:
    kind, _, argument = behaviour.partition(":")
    match kind:
        case "fail":
            raise ValueError("on purpose")
        case "exit":
            await asyncio.sleep(0.05)  # so that it takes some along who are in the middle of something
            os._exit(9)
        case "memory":
            hoard: list[bytes] = []
            while True:
                hoard.append(b"x" * 2**26)
        case "stay":
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does to whoever has used up the memory
        case "sleep":
            await asyncio.sleep(float(argument))
        case "fail-after":
            await asyncio.sleep(float(argument))
            raise ValueError("on purpose, and late")
        case _:
            await lose_time(kind, argument)


async def lose_time(kind: str, argument: str) -> None:
    """To a process that is stopped, or a loop that is blocked."""
    match kind:
        case "gated":
            await frozen_before(argument, unless=math.inf)
        case "fail-if-frozen" if await frozen_before(argument):
            raise ValueError("frozen")
        case "reject-if-frozen" if await frozen_before(argument):
            raise Reject("frozen")
        case "block":
            time.sleep(float(argument))  # noqa: ASYNC251 - that is the fault
        case "block-first":
            with suppress(FileExistsError):
                (history_path() / "blocked").touch(exist_ok=False)
                time.sleep(float(argument))  # noqa: ASYNC251


async def frozen_before(name: str, *, unless: float = LEASE * 0.9) -> bool:
    """Wait until the gate of that name is open, or this process was stopped for so many seconds: whether it was."""
    while not gate(history_path(), name).exists():
        began = time.monotonic()
        await asyncio.sleep(0.02)
        if time.monotonic() - began > unless:
            return True
    return False


def gate(folder: Path, name: str) -> Path:
    """Who makes this file lets all go on that wait for it."""
    return folder / f"gate-{name}"


def history_path() -> Path:
    return Path(os.environ["FAULTS_HISTORY"])
