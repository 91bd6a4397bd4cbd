"""From the outbox to the streams: one relay at a time, in the order of the rows.

It selects what is not marked as published, appends it, and marks it. There is no cursor: a row whose transaction
commits late, with a low position, must still be found. A relay that dies between append and mark leaves rows that may
have been appended; its successor looks for them first, by their event ids, and stores none twice.

Rows are judged one by one. A row that cannot be read, or is refused for what is in it, is set aside with the reason. A
stream that refuses its events holds up its own rows alone. Rows that were appended are marked, whatever became of the
others. What is done about which row is decided in eventbus.postgres.relay_decisions.

While the outbox stays empty the relay sleeps, until a transaction that has written to it sends a notification with its
commit: see eventbus.postgres.outbox.ASLEEP. It also looks now and then by itself, should a notification be lost.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg

from eventbus.contract.outgoing import Appender, Fate, Outgoing, fates_of
from eventbus.contract.transaction import Connection, Row
from eventbus.errors import CodecError, EventBusError, Unavailable
from eventbus.event import is_event_type
from eventbus.postgres import driver
from eventbus.postgres.connecting import Connector
from eventbus.postgres.outbox import CHANNEL, delay_of, envelope_of, once_of
from eventbus.postgres.relay_decisions import HAND_OVER, Judged, Relaying, Sent
from eventbus.postgres.relay_lock import RELAY, RelayLock
from eventbus.process import crash_points
from eventbus.process.open_files import exhausted
from eventbus.process.safe_logging import get_logger

BATCH, BATCH_BYTES = 500, 16 * 2**20  # rows, and bytes of their events, that are taken at a time; one row at least
IN_DOUBT = 4  # times BATCH: rows taken at a time while some may be in their streams, to share one look there
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.05  # seconds between looks at an empty outbox, until the relay sleeps
SLEEP = 1.0  # seconds until a sleeping relay looks though nobody has woken it
RETRY_PAUSE = 0.5  # seconds, when PostgreSQL or Redis is away or another relay is at work
HANG_UP_TIMEOUT = 1.0  # seconds
PRUNE_INTERVAL = 60.0  # seconds
PRUNE_BATCH = 10_000
PRUNE_PAUSE = 0.5  # seconds between full batches
LOOK_BACK = 5.0  # seconds; less than entries are kept in their streams at least
RETENTION = timedelta(days=7)  # how long published events and inbox rows are kept

_REASON = 1_000  # characters of why a row was set aside
_AT_WORK = """
SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted
   AND (classid::bigint << 32) + objid::bigint = $1 + 'eventbus_outbox'::regclass::oid::bigint
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_OUTBOX = "SELECT 'eventbus_outbox'::regclass::oid::bigint"
_REFUSES_WRITES = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"
# A place is a part of a stream that may refuse rows for a reason of its own: its lanes, its schedule, its dedupe keys.
_SELECT = f"""
SELECT position, event_id, type, meta, data, dedupe_key, dedupe_window, dedupe_replace, place,
       greatest(0, extract(epoch FROM due_at) - extract(epoch FROM clock_timestamp()))::float8 AS delay
FROM (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before
    FROM (
        SELECT position, event_id, type, meta, data, dedupe_key, dedupe_window, dedupe_replace, due_at, place
        FROM eventbus_outbox, LATERAL (SELECT split_part(type, '.', 1) || CASE
            WHEN dedupe_key IS NOT NULL THEN ' once' WHEN due_at IS NOT NULL THEN ' later' ELSE '' END AS place) AS p
        WHERE published_at IS NULL AND failed_at IS NULL AND place <> ALL($2::text[]) AND position <> ALL($3::bigint[])
        ORDER BY position LIMIT $1
    ) AS next
) AS sized
WHERE before < {BATCH_BYTES} ORDER BY position
"""  # noqa: S608 - a constant
_HIGHEST = "SELECT coalesce(max(position), 0) FROM eventbus_outbox WHERE published_at IS NULL"
_MARK = """
UPDATE eventbus_outbox SET published_at = clock_timestamp(), error = NULL WHERE position = ANY($1::bigint[])
"""
_SET_ASIDE = """
UPDATE eventbus_outbox SET failed_at = clock_timestamp(), error = aside.reason
FROM unnest($1::bigint[], $2::text[]) AS aside (place, reason) WHERE position = aside.place
"""
_REFUSED = """
UPDATE eventbus_outbox SET error = refused.reason
FROM unnest($1::bigint[], $2::text[]) AS refused (place, reason)
WHERE position = refused.place AND error IS DISTINCT FROM refused.reason
"""
# In one statement: whoever dies in between leaves the former server's name, and the next relay does it all again.
_FOLLOW = """
WITH before AS (SELECT server FROM eventbus_relayed_to),
     newest AS (SELECT max(published_at) AS at FROM eventbus_outbox),
     again AS (
         UPDATE eventbus_outbox SET published_at = NULL FROM newest, before
         WHERE before.server <> $1 AND published_at > newest.at - make_interval(secs => $2) RETURNING true
     ),
     kept AS (
         INSERT INTO eventbus_relayed_to (server) VALUES ($1)
         ON CONFLICT (only_row) DO UPDATE SET server = $1, since = now() WHERE eventbus_relayed_to.server <> $1
     )
SELECT count(*) FROM again
"""
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

log = get_logger("eventbus.relay")


class Relay:
    """`run()` for ever, in every worker: whoever holds the lock works, the others stand by.

    Behind a pooler it never sleeps, because no notification would reach it: it looks every LONGEST_PAUSE.

    primary    names the server that events are appended to: see eventbus.contract.replication
    look_back  seconds: when another primary takes over, it may lack what the one before had acknowledged. What was
               marked in the last seconds before that is looked for there by its ids, and appended where it is missing
    """

    def __init__(
        self,
        connector: Connector | str,
        appender: Appender,
        *,
        primary: Callable[[], str] = str,
        look_back: float = LOOK_BACK,
    ) -> None:
        self._connector = Connector(connector) if isinstance(connector, str) else connector
        self._appender = appender
        self._primary = primary
        self._look_back = look_back
        self._away = False
        self._woken = asyncio.Event()
        self._decisions = Relaying(time.monotonic)
        self._batch = BATCH

    async def run(self) -> None:
        while True:
            try:
                # Connections of its own: the lock would occupy one of the pool.
                async with self._connected() as connection:
                    await self._stand_by(connection)
            except Exception as error:  # noqa: BLE001 - a relay that ends takes its worker along
                self._note(error)
            await asyncio.sleep(RETRY_PAUSE)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await self._connector(timeout=5, command_timeout=30)
        try:
            yield connection
        finally:
            await _hang_up(connection)

    async def _stand_by(self, holder: asyncpg.Connection) -> None:
        outbox: int = await holder.fetchval(_OUTBOX)
        lock = RelayLock(holder, outbox)
        while not await lock.acquire():
            await asyncio.sleep(RETRY_PAUSE)
        log.debug("relaying the outbox")
        await asyncio.sleep(HAND_OVER)  # the relay before this one may not know yet that its session is gone
        async with self._connected() as connection:
            if await connection.fetchval(_REFUSES_WRITES):  # nothing that is sent could be marked
                raise asyncpg.ReadOnlySQLTransactionError("the server is a standby, or read-only")
            if not self._connector.pooled:
                await connection.add_listener(f"{CHANNEL}{outbox}", self._wake)
            connection.add_termination_listener(self._wake)
            holder.add_termination_listener(self._wake)
            await self._relay(connection, lock)

    def _wake(self, *_: object) -> None:
        self._woken.set()

    async def _relay(self, connection: asyncpg.Connection, lock: RelayLock) -> None:
        asleep, pause, prune_at = False, SHORTEST_PAUSE, time.monotonic() + PRUNE_INTERVAL
        decisions = self._decisions
        followed = ""
        decisions.begin(await connection.fetchval(_HIGHEST))
        while True:
            self._woken.clear()
            await lock.keep()
            if followed != (primary := self._primary()):
                await self._follow(connection, primary)
                followed = primary
            if time.monotonic() > prune_at:
                prune_at = time.monotonic() + await self._prune(connection)
            selected_at, places, positions = (
                time.monotonic(),
                decisions.places_left_alone(),
                decisions.rows_left_alone(),
            )
            limit = BATCH * IN_DOUBT if self._batch == BATCH and decisions.in_doubt else self._batch
            rows = await connection.fetch(_SELECT, limit, places, positions)
            if rows:
                await self._move(connection, lock, rows, selected_at)
                if asleep:
                    await lock.awake()
                asleep, pause = False, SHORTEST_PAUSE
                self._batch = min(self._batch * 2, BATCH)
                if not decisions.rows_left_alone():
                    self._note(None)
                continue
            decisions.seen_empty()
            if asleep:
                await self._sleep()
            elif pause < LONGEST_PAUSE:
                await asyncio.sleep(pause)
                pause *= 2
            else:  # and look once more: what committed before the lock was ours has notified nobody
                asleep = not self._connector.pooled and await lock.fall_asleep()
                await asyncio.sleep(0 if asleep else LONGEST_PAUSE)

    async def _follow(self, connection: asyncpg.Connection, primary: str) -> None:
        """What was marked right before another primary took over is unmarked, and in doubt."""
        if again := await connection.fetchval(_FOLLOW, primary, self._look_back):
            log.warning("the primary is another: what was relayed last is looked for there", rows=again)
        self._decisions.begin(await connection.fetchval(_HIGHEST))

    async def _move(
        self, connection: asyncpg.Connection, lock: RelayLock, rows: Sequence[Row], selected_at: float
    ) -> None:
        """Move rows to their streams, and write down what became of each. Then, if some wait, raise the reason."""
        readable, failed = self._read(rows)
        sent = self._decisions.chosen(readable)
        judged = Judged([], {}, {}, [], None)
        if sent:
            await lock.prove()  # else these rows are another relay's by now
            again, primary = self._decisions.must_look(sent, selected_at), self._primary()
            judged = self._decisions.judge(sent, await self._append(sent, again))
            crash_points.point("relay.appended")
            if self._primary() != primary:  # some may be at the one, some at the other
                raise Unavailable("Redis", "the primary was replaced while events were appended")
        failed |= judged.failed
        if judged.published:
            await connection.execute(_MARK, judged.published)
        if failed:
            await connection.execute(_SET_ASIDE, list(failed), [_column(reason) for reason in failed.values()])
        if judged.refusing:
            refused = judged.refusing.values()
            reasons = [_column(refusal.reason) for refusal in refused]
            await connection.execute(_REFUSED, [refusal.position for refusal in refused], reasons)
        _tell(rows, failed, judged)
        if judged.trouble is not None:
            raise judged.trouble

    def _read(self, rows: Sequence[Row]) -> tuple[list[Sent], dict[int, str]]:
        """(the rows that can be sent, why others never can, by position)."""
        readable, failed = list[Sent](), dict[int, str]()
        for row in rows:
            try:
                readable.append(Sent(row["position"], row["place"], _outgoing(row)))
            except CodecError as error:
                failed[row["position"]] = str(error)
            except Exception as error:  # whatever it is, the other rows need not wait
                self._stumble(row["position"], error)
                if len(self._decisions.rows_left_alone()) > BATCH:  # it is no row's fault
                    raise
        return readable, failed

    async def _append(self, sent: Sequence[Sent], again: bool) -> Sequence[Fate]:
        try:
            return await self._appender.append([row.item for row in sent], again=again)
        except Exception as error:
            if isinstance(error, EventBusError) and (len(sent) == 1 or not isinstance(error, CodecError)):
                return fates_of(error, len(sent))
            # It may be one row's fault: they go one by one until it is found.
            self._batch = 1
            if len(sent) == 1:
                self._stumble(sent[0].position, error)
            raise

    def _stumble(self, position: int, error: Exception) -> None:
        self._decisions.leave_alone(position)
        self._note(error)

    async def _sleep(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SLEEP):
                await self._woken.wait()

    async def _prune(self, connection: asyncpg.Connection) -> float:
        """Delete a batch of old rows. Returns the seconds until there is a reason to come again."""
        done = [
            await connection.execute(statement, RETENTION, PRUNE_BATCH) for statement in (_PRUNE_OUTBOX, _PRUNE_INBOX)
        ]
        return PRUNE_PAUSE if f"DELETE {PRUNE_BATCH}" in done else PRUNE_INTERVAL

    def _note(self, trouble: Exception | None) -> None:
        """One line when the relay stops, one when it works again."""
        if trouble is not None and not self._away:
            foreseen = isinstance(trouble, (EventBusError, *driver.ERRORS))
            reason = exhausted(trouble) or str(trouble) or type(trouble).__name__
            log.warning("the outbox is not relayed", reason=reason, exc_info=None if foreseen else trouble)
        elif trouble is None and self._away:
            log.info("the outbox is relayed again")
        self._away = trouble is not None


def _outgoing(row: Row) -> Outgoing:
    """Raises CodecError for a row that nobody could read in a stream: somebody has written it with SQL of his own."""
    if not is_event_type(row["type"]):
        raise CodecError(f"its type {row['type'][:50]!r} is not of the form 'stream.name' in lower case")
    return Outgoing(envelope_of(row), delay_of(row), once=once_of(row))


def _column(reason: str) -> str:
    """A reason as PostgreSQL can hold it, without null characters; at most _REASON characters of it."""
    return reason.replace("\0", "")[:_REASON]


def _tell(rows: Sequence[Row], failed: Mapping[int, str], judged: Judged) -> None:
    for row in rows:
        if reason := failed.get(row["position"]):
            named = {"position": row["position"], "event_id": str(row["event_id"]), "event_type": row["type"]}
            log.error("a row of the outbox is set aside", **named, reason=reason, mend="eventbus outbox list")
    for place, (position, reason, new) in judged.refusing.items():
        if new:
            log.warning("a stream refuses the outbox' events", stream=place, position=position, reason=reason)
    for place in judged.healed:
        log.info("a stream takes the outbox' events again", stream=place)


async def at_work(connection: Connection) -> bool:
    """Whether anybody relays this outbox now."""
    found: bool = await connection.fetchval(_AT_WORK, RELAY)
    return found


async def _hang_up(connection: asyncpg.Connection) -> None:
    """Close the connection, so that the lock is free at once; a statement that runs is cancelled. The wait is bounded:
    a session that was cut may never answer."""
    try:
        with suppress(*driver.ERRORS):
            async with asyncio.timeout(HANG_UP_TIMEOUT):
                await connection.close()
    finally:  # a task that is cancelled meanwhile must not keep the lock
        connection.terminate()
