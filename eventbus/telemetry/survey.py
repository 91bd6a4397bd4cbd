"""What the servers hold, read now and then for whoever reads the metrics: never for a scrape, never for an event."""

import asyncio
from collections.abc import Collection

from eventbus.contract.broker import Broker
from eventbus.contract.transaction import Database
from eventbus.errors import EventBusError
from eventbus.process.safe_logging import get_logger
from eventbus.telemetry.metrics import Metrics

INTERVAL = 10.0  # seconds
SEARCH_EVERY = 6  # surveys; a search for streams looks through all keys, a reading is one round trip

log = get_logger("eventbus.survey")


class Survey:
    """A Role: `run()` for ever. It asks nothing of the servers while nobody can read the metrics.

    streams: those that are read whether they are found or not
    """

    def __init__(
        self, metrics: Metrics, transport: Broker, database: Database | None, streams: Collection[str] = ()
    ) -> None:
        self._metrics = metrics
        self._transport = transport
        self._database = database
        self._streams = frozenset(streams)
        self._known = self._streams
        self._round = 0

    async def run(self) -> None:
        while True:
            if self._metrics.exposed:
                try:
                    await self.look()
                except Exception:  # a role that ends takes the worker with it
                    log.exception("the survey failed")
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """One survey. What cannot be read is not shown: an old number would look like a new one."""
        if self._database is not None:
            await asyncio.gather(self._look_at_streams(), self._look_at_database(self._database))
        else:
            await self._look_at_streams()

    async def _look_at_streams(self) -> None:
        search, self._round = self._round % SEARCH_EVERY == 0, self._round + 1
        try:
            if search:
                self._known = self._streams.union(await self._transport.find_streams())
            self._metrics.streams = await self._transport.inspect(self._known)
            self._metrics.circuits_open = sum(state.is_open for state in await self._transport.circuits.troubled())
        except EventBusError:  # the log says already which server is away
            self._metrics.streams, self._metrics.circuits_open, self._metrics.up["redis"] = (), None, False
            self._round = 0
        else:
            self._metrics.up["redis"] = True

    async def _look_at_database(self, database: Database) -> None:
        try:
            async with database.transaction() as tx:
                await tx.connection.fetchval("SELECT 1")
            self._metrics.outbox = await database.outbox_standing()
        except EventBusError:
            self._metrics.up["postgres"], self._metrics.outbox = False, None
        else:
            self._metrics.up["postgres"] = True
