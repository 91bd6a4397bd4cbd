"""A worker process that is busy and writes down when its handlers begin and end: `python -m tests.soak.busy`.

SOAK_REDIS    URL of the server
SOAK_LEASE    seconds; every other time of the engine is as many times shorter as this is shorter than 10 s
SOAK_HISTORY  file to which lines are appended: b or e, event id, process id, seconds of a clock that processes share
"""

import asyncio
import os
import time
from collections.abc import Callable

from eventbus import Context, Event, EventBus, Group, Worker
from eventbus.consuming import consumer
from eventbus.process.logs import configure
from eventbus.process.loop import run
from eventbus.redis import link, reclaiming, transport

USUAL_LEASE = 10.0


class Held(Event, type="soak.held"):
    seconds: float


def scale(factor: float) -> None:
    """Every time that has to do with silence and leases."""
    transport.COMMAND_TIMEOUT *= factor
    link.CONNECT_TIMEOUT *= factor
    reclaiming.QUIET_MARGIN *= factor
    consumer.READ_WAIT *= factor
    consumer.RECLAIM_INTERVAL *= factor


def busy(lease: float, note: Callable[[str, str], None]) -> Group:
    group = Group("busy", lease=lease, concurrency=40)

    @group.on(Held)
    async def hold(event: Held, ctx: Context) -> None:
        note("b", ctx.event_id)
        try:
            await asyncio.sleep(event.seconds)
        finally:
            note("e", ctx.event_id)

    return group


async def main() -> None:
    lease = float(os.environ["SOAK_LEASE"])
    scale(min(1.0, lease / USUAL_LEASE))
    history = os.open(os.environ["SOAK_HISTORY"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(what: str, event_id: str) -> None:
        os.write(history, f"{what} {event_id} {os.getpid()} {time.monotonic():.3f}\n".encode())

    async with EventBus(os.environ["SOAK_REDIS"], publish_timeout=transport.COMMAND_TIMEOUT) as bus:
        await Worker(bus, [busy(lease, note)], grace=0.1).run()


if __name__ == "__main__":
    configure("json")
    run(main())
