"""A worker of an ordered group: `python -m tests.faults.talking [plain]`. It writes down when it begins an event."""

import asyncio
import os
import random
import sys

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.process.logs import configure
from eventbus.process.loop import run
from tests.faults.history import History
from tests.faults.jobs import history_path

LEASE = 1.0  # seconds
STUMBLES = 37  # each so many-th event fails twice


class Said(Event, type="talk.said"):
    who: str
    number: int


def talkers(history: History, *, ordered: bool = True) -> Group:
    talk = Group(
        "talk",
        ordered=ordered,
        lease=LEASE,
        concurrency=20,
        retry=RetryPolicy(attempts=4, backoff=Backoff.fixed(0.05)),
        crash_budget=None,
    )

    @talk.on(Said)
    async def listen(event: Said, ctx: Context) -> None:
        history.record("begun", who=event.who, number=event.number, attempt=ctx.attempt)
        await asyncio.sleep(random.random() / 200)
        if event.number % STUMBLES == 0 and ctx.attempt < 3:
            raise ValueError("not yet")
        history.record("ended", who=event.who, number=event.number)

    return talk


async def main() -> None:
    async with EventBus(os.environ["FAULTS_REDIS"]) as bus:
        group = talkers(History(history_path()), ordered="plain" not in sys.argv)
        await Worker(bus, [group], grace=5).run()


if __name__ == "__main__":
    configure("json")
    run(main())
