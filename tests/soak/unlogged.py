"""A worker process whose log cannot be written: `python -m tests.soak.unlogged MODE`; see tests.soak.logs."""

import functools
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Tick, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run

ATTEMPTS, BACKOFF = 3, 0.3  # and seconds
STREAMS = ("closed", "full", "gone", "logging", "raising")


class Numbered(Event):
    number: int


class Endless(logging.Handler):
    """A program's own handler, which raises for every line."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError(f"{record.msg} cannot be handed on")


@functools.cache
def types_of(mode: str) -> tuple[type[Numbered], type[Numbered]]:
    """What is handled, and what fails whenever it is tried. Of its own stream: several of these share a server."""

    class Sound(Numbered, type=f"{mode}.sound"):
        """Is handled."""

    class Faulty(Numbered, type=f"{mode}.faulty"):
        """Fails."""

    return Sound, Faulty


def group_of(mode: str, written: Path) -> Group:
    """Writes down what it runs: kind, number, attempt, and when."""
    sound, faulty = types_of(mode)
    group = Group(mode, retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff.fixed(BACKOFF)), lease=10.0)
    file = written.open("a", buffering=1, encoding="utf-8")

    @group.on(sound)
    async def handle(event: Any, ctx: Context) -> None:
        ctx.log.info("handled", name="of no use to logging", number=event.number)
        file.write(f"sound {event.number} {ctx.attempt} {time.time()}\n")

    @group.on(faulty)
    async def fail(event: Any, ctx: Context) -> None:
        file.write(f"faulty {event.number} {ctx.attempt} {time.time()}\n")
        raise ValueError(event.number)

    @group.every(1.0)
    async def recur(tick: Tick, ctx: Context) -> None:
        file.write(f"recurred 0 1 {time.time()}\n")

    return group


def set_up_logging(mode: str) -> None:
    if mode in {"logging", "raising"}:
        logger = logging.getLogger("others")
        logger.addHandler(Endless() if mode == "raising" else logging.NullHandler())
        structlog.configure(
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=lambda *_: logger,
        )
    else:
        configure("json")


async def main(mode: str) -> None:
    async with EventBus(os.environ["SOAK_REDIS"]) as bus:
        await Worker(bus, [group_of(mode, Path(os.environ["SOAK_WRITTEN"]))], grace=5).run()


if __name__ == "__main__":
    set_up_logging(sys.argv[1])
    run(main(sys.argv[1]))
