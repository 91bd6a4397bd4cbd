"""What recurs in the fault tests, in the worker processes of tests.faults.process when FAULTS_TICKS is set."""

import os
from datetime import timedelta

from eventbus import Context, Group, Tick
from tests.faults.history import History
from tests.faults.jobs import LEASE

STREAM = "tick_clock"
PERIOD = timedelta(seconds=2)  # of the pulse, whose effects are in the table


def clock(history: History) -> Group:
    group = Group("clock", lease=LEASE)

    @group.cron("*/2 * * * * *")
    async def pulse(tick: Tick, ctx: Context) -> None:
        history.record("tick", due=tick.due.timestamp(), event_id=ctx.event_id)
        async with ctx.transaction() as tx:
            await tx.connection.execute("INSERT INTO ticks VALUES ($1, $2)", tick.due, os.getpid())

    @group.every(0.25)
    async def quarter(tick: Tick, ctx: Context) -> None:
        return

    return group
