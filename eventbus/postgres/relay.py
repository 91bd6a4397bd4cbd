"""From the outbox to the streams: one relay at a time, in the order of the rows.

It selects what is not marked as published, appends it, and marks it. No cursor: a row whose transaction commits late,
with a low position, is still there to be found. A relay that dies between append and mark leaves rows that may have
been appended; its successor appends them again, by their event ids, and stores none twice.

An outbox that stays empty lets the relay fall asleep, until a transaction that has written to it says so as it commits:
see eventbus.postgres.outbox.ASLEEP. It also looks now and then by itself, should that word be lost.
"""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta

import asyncpg
import structlog

from eventbus import crash
from eventbus.errors import EventBusError
from eventbus.postgres import driver
from eventbus.postgres.outbox import ASLEEP, CHANNEL, envelope_of, once_of
from eventbus.transport import Appender, Outgoing

BATCH = 500
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.05  # seconds between looks at an empty outbox, until the relay sleeps
SLEEP = 1.0  # seconds until it looks though nobody has woken it
RETRY_PAUSE = 0.5  # seconds, when PostgreSQL or Redis is away or another relay is at work
HANG_UP_TIMEOUT = 1.0  # seconds
PRUNE_INTERVAL = 60.0  # seconds
PRUNE_BATCH = 10_000
PRUNE_PAUSE = 0.5  # seconds between full batches
RETENTION = timedelta(days=7)  # how long published events and inbox rows are kept

_LOCK = 0x6576_6275_7302
# A host that vanishes says no goodbye: without these its session would hold the lock for hours.
_NOTICE_LOST_HOSTS = {"tcp_keepalives_idle": "5", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}
_SELECT = """
SELECT position, event_id, type, meta, data, dedupe_key, dedupe_window, dedupe_replace,
       greatest(0, extract(epoch FROM due_at - clock_timestamp()))::float8 AS delay
FROM eventbus_outbox WHERE published_at IS NULL ORDER BY position LIMIT $1
"""
_MARK = "UPDATE eventbus_outbox SET published_at = clock_timestamp() WHERE position = ANY($1::bigint[])"
_PRUNE_OUTBOX = """
DELETE FROM eventbus_outbox WHERE position IN (
    SELECT position FROM eventbus_outbox WHERE published_at < now() - $1::interval LIMIT $2
)
"""
_PRUNE_INBOX = """
DELETE FROM eventbus_inbox WHERE (event_id, group_name) IN (
    SELECT event_id, group_name FROM eventbus_inbox WHERE processed_at < now() - $1::interval LIMIT $2
)
"""

log = structlog.get_logger("eventbus.relay")


class Relay:
    """`run()` for ever, in every worker: whoever holds the advisory lock works, the others stand by."""

    def __init__(self, dsn: str, appender: Appender) -> None:
        self._dsn = dsn
        self._appender = appender
        self._away = False
        self._woken = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                # A connection of its own: the lock is the session's, and must not keep one of the pool's.
                connection = await asyncpg.connect(
                    self._dsn, timeout=5, command_timeout=30, server_settings=_NOTICE_LOST_HOSTS
                )
                try:
                    await self._stand_by(connection)
                finally:
                    await _hang_up(connection)
            except Exception as error:  # noqa: BLE001 - a relay that ends takes its worker along
                self._note(error)
            await asyncio.sleep(RETRY_PAUSE)

    async def _stand_by(self, connection: asyncpg.Connection) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            await asyncio.sleep(RETRY_PAUSE)
        log.debug("relaying the outbox")
        await connection.add_listener(CHANNEL, self._wake)
        connection.add_termination_listener(self._wake)
        await self._relay(connection)

    def _wake(self, *_: object) -> None:
        self._woken.set()

    async def _relay(self, connection: asyncpg.Connection) -> None:
        uncertain, asleep, pause, prune_at = True, False, SHORTEST_PAUSE, time.monotonic() + PRUNE_INTERVAL
        while True:
            self._woken.clear()
            if time.monotonic() > prune_at:
                prune_at = time.monotonic() + await self._prune(connection)
            rows = await connection.fetch(_SELECT, BATCH)
            if rows:
                outgoing = [Outgoing(envelope_of(row), row["delay"] or 0.0, once=once_of(row)) for row in rows]
                await self._appender.append(outgoing, again=uncertain)
                crash.point("relay.appended")
                await connection.execute(_MARK, [row["position"] for row in rows])
                if asleep:
                    await connection.execute("SELECT pg_advisory_unlock($1)", ASLEEP)
                uncertain, asleep, pause = False, False, SHORTEST_PAUSE
                self._note(None)
                continue
            uncertain = False
            if asleep:
                await self._sleep()
            elif pause < LONGEST_PAUSE:
                await asyncio.sleep(pause)
                pause *= 2
            else:  # and look once more: what committed before the lock was ours has told nobody
                asleep = await connection.fetchval("SELECT pg_try_advisory_lock($1)", ASLEEP)
                await asyncio.sleep(0 if asleep else LONGEST_PAUSE)

    async def _sleep(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SLEEP):
                await self._woken.wait()

    async def _prune(self, connection: asyncpg.Connection) -> float:
        """Delete a batch of what is old; the seconds until there is a reason to come again."""
        done = [
            await connection.execute(statement, RETENTION, PRUNE_BATCH) for statement in (_PRUNE_OUTBOX, _PRUNE_INBOX)
        ]
        return PRUNE_PAUSE if f"DELETE {PRUNE_BATCH}" in done else PRUNE_INTERVAL

    def _note(self, trouble: Exception | None) -> None:
        """One line when the relay stops, one when it works again."""
        if trouble is not None and not self._away:
            foreseen = isinstance(trouble, (EventBusError, *driver.ERRORS))
            reason = str(trouble) or type(trouble).__name__
            log.warning("the outbox waits", reason=reason, exc_info=None if foreseen else trouble)
        elif trouble is None and self._away:
            log.info("the outbox flows again")
        self._away = trouble is not None


async def _hang_up(connection: asyncpg.Connection) -> None:
    """A statement that runs is cancelled, so that the lock is free at once. A session that was cut may never answer."""
    try:
        async with asyncio.timeout(HANG_UP_TIMEOUT):
            await connection.close()
    except driver.ERRORS:
        connection.terminate()
