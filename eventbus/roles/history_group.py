"""The group that keeps every event in PostgreSQL: see docs/history.md.

    GROUPS = [crm, billing, recorder()]

A worker runs it only if `EventBus(history=…)` says how long events are kept; otherwise it leaves this group out.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from eventbus.context import HandlerBus
from eventbus.contract.history import HistoryWriter
from eventbus.contract.tap import Passing
from eventbus.errors import Unavailable
from eventbus.group import Group
from eventbus.policy import Backoff, RetryPolicy
from eventbus.process.safe_logging import get_logger

NAME = "history"
LEASE = 60.0  # seconds; long, because the group looks after leases on every stream
GATHERING = 0.25  # seconds; nobody waits for history, and a COPY of one row costs as much as that of a hundred
INTERVAL = 3600.0  # seconds between looks for months that are over
AWAY_PAUSE = 5.0  # seconds until another try, while PostgreSQL is away

log = get_logger("eventbus.history")


def recorder(*, lease: float = LEASE) -> Group:
    """A group that records all events, on all streams. It tries for ever, and blames no event if its worker dies."""
    group = Group(
        NAME,
        retry=RetryPolicy(attempts=None, backoff=Backoff.exponential(1.0, cap=60.0)),
        concurrency=1,
        lease=lease,
        crash_budget=None,
    )
    group.tap(max_wait=GATHERING)(record)
    return group


async def record(events: Sequence[Passing], bus: HandlerBus) -> None:
    await bus.transactions.record(events)


def is_recorder(group: Group) -> bool:
    return group.tapping is not None and group.tapping.handler is record


class Expiry:
    """A Role: `run()` for ever. Makes the next partitions in time, and drops months that were kept for long enough."""

    def __init__(self, store: HistoryWriter, keep: timedelta) -> None:
        self._store = store
        self._keep = keep

    async def run(self) -> None:
        while True:
            try:
                await self._store.prepare()
                await self._store.expire(self._keep)
            except Unavailable:
                await asyncio.sleep(AWAY_PAUSE)
                continue
            except Exception as error:  # noqa: BLE001 - events are recorded all the same
                log.error("cannot look after the partitions of the history", error=str(error))  # noqa: TRY400
            await asyncio.sleep(INTERVAL)
