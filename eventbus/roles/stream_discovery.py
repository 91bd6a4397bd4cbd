"""Finding the streams that a tap does not read yet: those of the types that this process knows, and all that are in
Redis. So a tap sees what a new service publishes without a restart."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from eventbus.contract.inspection import Inspection
from eventbus.errors import EventBusError, Unavailable
from eventbus.event import event_types, stream_of
from eventbus.process.safe_logging import get_logger

INTERVAL = 15.0  # seconds between looks; less than a new worker's housekeeping waits before it trims
REST = 100  # a look goes through all keys: the pause after it is at least so many times as long as it took

log = get_logger("eventbus.seeking")


class Seeking:
    """`run()` for ever. `follow` is told of each stream once."""

    def __init__(self, transport: Inspection, follow: Sequence[Callable[[str], None]]) -> None:
        self._transport = transport
        self._follow = follow
        self._known: set[str] = set()

    async def run(self) -> None:
        self._tell(stream_of(event_type) for event_type in event_types())
        while True:
            began = perf_counter()
            try:
                self._tell(await self._transport.find_streams())
            except Unavailable:
                pass
            except EventBusError as error:
                log.error("cannot look for streams", error=str(error))  # noqa: TRY400
            await asyncio.sleep(max(INTERVAL, REST * (perf_counter() - began)))

    def _tell(self, streams: Iterable[str]) -> None:
        for stream in sorted({*streams} - self._known):
            self._known.add(stream)
            for follow in self._follow:
                follow(stream)
