"""Firing what recurs, in every worker: the first one stores the firing, the others find it stored.

Each worker asks the server for its time and the last firing, fires what is owed, and sleeps until the next moment.
Firings are missed while no worker runs or Redis is away. Of these the last one is made up for, once, if it is not older
than `catch_up` seconds; those before it, and one that is too old, are left out.
"""

import asyncio
import functools
from collections.abc import Sequence
from datetime import datetime

from eventbus.contract.codec import envelop
from eventbus.contract.firings import Firings
from eventbus.contract.recurring import Recurring
from eventbus.errors import EventBusError
from eventbus.group import Group
from eventbus.process import crash_points
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import supervise

LONGEST_SLEEP = 60.0  # seconds; clocks may be set, and machines sleep
RETRY_PAUSE = 1.0  # seconds, while the server is away

log = get_logger("eventbus.recurrence")


class Recurrence:
    """`run()` until it is cancelled. Stopping it at any point loses nothing: another worker fires."""

    def __init__(self, transport: Firings, groups: Sequence[Group]) -> None:
        self._transport = transport
        self._recurring = [recurring for group in groups for recurring in group.recurring]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for recurring in self._recurring:
                name = f"recur:{recurring.group}:{recurring.name}"
                # A task for each: one whose event cannot be made must not keep the others from firing.
                tasks.create_task(supervise(name, functools.partial(self._recur, recurring)), name=name)

    async def _recur(self, recurring: Recurring) -> None:
        told: datetime | None = None
        away = False
        while True:
            try:
                now, last = await self._transport.last_firing(recurring.stream, recurring.name)
                due = recurring.owed(last, now)
                fired = due is not None and await self._fire(recurring, due)
            except EventBusError as error:
                if not away:
                    log.warning(
                        "recurring functions are not fired",
                        group=recurring.group,
                        function=recurring.name,
                        reason=str(error),
                    )
                away = True
                await asyncio.sleep(RETRY_PAUSE)
                continue
            away = False
            if (fired or due is None) and last != told:
                told = last
                _tell_skipped(recurring, last, now, due)
            following = recurring.schedule.following(now)
            wait = LONGEST_SLEEP if following is None else (following - now).total_seconds() + 0.001
            await asyncio.sleep(min(wait, LONGEST_SLEEP))

    async def _fire(self, recurring: Recurring, due: datetime) -> bool:
        firing = envelop(recurring.tick(due=due), key=recurring.name)._replace(id=recurring.event_id(due))
        fired = await self._transport.fire(firing, recurring.name, due)
        crash_points.point("recurrence.fired")
        return fired


def _tell_skipped(recurring: Recurring, last: datetime, now: datetime, due: datetime | None) -> None:
    first = recurring.schedule.following(last)
    if first is not None and first <= now and first != due:
        log.warning(
            "missed firings are left out",
            group=recurring.group,
            function=recurring.name,
            since=first.isoformat(),
            before=(due or now).isoformat(),
        )
