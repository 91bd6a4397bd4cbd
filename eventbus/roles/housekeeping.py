"""Trimming what is settled, forgetting consumers that are gone, bounding the dead letters. Every worker does it for the
streams that it reads: doing it twice does no harm, and nobody has to be elected."""

import asyncio
import functools
import random
from collections.abc import Sequence

from eventbus.contract.inspection import SCHEDULE
from eventbus.contract.retention import Retention
from eventbus.contract.upkeep import Upkeep
from eventbus.errors import EventBusError, Unavailable
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import supervise

FIRST_INTERVAL = 20.0  # seconds until the first round
BUSY_INTERVAL, EMPTY_INTERVAL = 5.0, 60.0  # seconds until the next round, if there are entries and if not
CONSUMERS_INTERVAL = 600.0  # seconds between looks for consumers that are gone

log = get_logger("eventbus.housekeeping")


class Housekeeping:
    """`run()` for ever."""

    def __init__(self, transport: Upkeep, streams: Sequence[str], retention: Retention) -> None:
        self._transport = transport
        self._streams = list(streams)
        self._rounds: asyncio.TaskGroup | None = None
        self._retention = retention
        self._missing: dict[str, Sequence[str]] = {}

    async def run(self) -> None:
        """Each stream at a pace of its own."""
        async with asyncio.TaskGroup() as self._rounds:
            for stream in self._streams:
                self._begin(stream)
            await asyncio.Event().wait()

    def follow(self, stream: str) -> None:
        """Look after this stream, too."""
        if stream not in self._streams:
            self._streams.append(stream)
            self._begin(stream)

    def _begin(self, stream: str) -> None:
        if self._rounds is not None:
            name = f"housekeeping:{stream}"
            self._rounds.create_task(supervise(name, functools.partial(self._run, stream)), name=name)

    async def _run(self, stream: str) -> None:
        pause, spread = FIRST_INTERVAL, random.random()  # noqa: S311 - so that workers started together take turns
        consumers_at = asyncio.get_running_loop().time() + CONSUMERS_INTERVAL * spread
        while True:
            await asyncio.sleep(pause * (1.0 + spread / 2))
            now = asyncio.get_running_loop().time()
            try:
                busy = await self._tidy(stream, consumers=now >= consumers_at)
                pause = BUSY_INTERVAL if busy else EMPTY_INTERVAL
            except Unavailable:
                continue
            except EventBusError as error:
                log.error("housekeeping failed", stream=stream, error=str(error))  # noqa: TRY400
                continue
            if now >= consumers_at:
                consumers_at = now + CONSUMERS_INTERVAL

    async def _tidy(self, stream: str, *, consumers: bool) -> bool:
        """Tidy the stream, and log what is wrong. Returns whether entries are left, which will have to be trimmed."""
        tidied = await self._transport.tidy(stream, self._retention, consumers=consumers)
        if tidied.dead_letters:
            log.warning("dead letters dropped", stream=stream, count=tidied.dead_letters, kept=str(self._retention))
        if tidied.missing_groups and tidied.missing_groups != self._missing.get(stream):
            log.error(
                "not trimmed: a group is missing; start a worker of it, or let `eventbus groups forget` forget it",
                stream=stream,
                groups=tidied.missing_groups,
            )
        self._missing[stream] = tidied.missing_groups
        for group, count in tidied.vanished:
            if group == SCHEDULE:
                log.error(
                    "events have vanished that were scheduled: something else than the bus has deleted them; see: "
                    "eventbus audit",
                    stream=stream,
                    count=count,
                )
                continue
            log.error(
                "events have vanished that were not settled: something else than the bus has deleted, trimmed or "
                "acknowledged them; see: eventbus audit",
                stream=stream,
                group=group,
                count=count,
            )
        return tidied.left > 0
