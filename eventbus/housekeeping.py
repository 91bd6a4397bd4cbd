"""Trimming what is settled, forgetting consumers that are gone, bounding the dead letters. Every worker does it for the
streams that it reads: doing it twice does no harm, and nobody has to be elected."""

import asyncio
import random
from collections.abc import Sequence

import structlog

from eventbus.errors import EventBusError, Unavailable
from eventbus.retention import Retention
from eventbus.transport import Transport

INTERVAL = 5.0  # seconds between two rounds, and up to half as much again

log = structlog.get_logger("eventbus.housekeeping")


class Housekeeping:
    """`run()` for ever."""

    def __init__(self, transport: Transport, streams: Sequence[str], retention: Retention) -> None:
        self._transport = transport
        self._streams = streams
        self._retention = retention
        self._missing: dict[str, Sequence[str]] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL * random.uniform(1.0, 1.5))  # noqa: S311 - workers started at once spread out
            for stream in self._streams:
                try:
                    await self._tidy(stream)
                except Unavailable:
                    break
                except EventBusError as error:
                    log.error("housekeeping failed", stream=stream, error=str(error))  # noqa: TRY400

    async def _tidy(self, stream: str) -> None:
        tidied = await self._transport.tidy(stream, self._retention)
        if tidied.dead_letters:
            log.warning("dead letters dropped", stream=stream, count=tidied.dead_letters, kept=str(self._retention))
        if tidied.missing_groups and tidied.missing_groups != self._missing.get(stream):
            log.error(
                "not trimmed: a group is missing; start a worker of it, or let `eventbus groups forget` forget it",
                stream=stream,
                groups=tidied.missing_groups,
            )
        self._missing[stream] = tidied.missing_groups
