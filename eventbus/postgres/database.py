"""A pool of connections and the transactions that the bus makes with it: outbox and inbox."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import asyncpg.pool
import asyncpg.transaction
import orjson

from eventbus.checks.addresses import show_url
from eventbus.contract.aggregates import Aggregate
from eventbus.contract.codec import MAX_PAYLOAD
from eventbus.contract.inspection import OutboxStanding
from eventbus.contract.outgoing import Appender
from eventbus.contract.transaction import Connection
from eventbus.errors import ConfigurationError, Conflict, EventBusError, SessionEnded, Unavailable
from eventbus.event import Origin
from eventbus.postgres import driver
from eventbus.postgres.connecting import Connector, quoted
from eventbus.postgres.history import EventStore
from eventbus.postgres.lending import Lending
from eventbus.postgres.outbox import Outbox
from eventbus.postgres.outbox_status import standing
from eventbus.postgres.recording import PostgresHistoryWriter
from eventbus.postgres.relay import Relay
from eventbus.postgres.replays import PostgresReplays
from eventbus.postgres.server_condition import ServerCondition, why_ended
from eventbus.postgres.transactions import CommittedBefore, PostgresBatchInbox, PostgresTransaction
from eventbus.process import crash_points
from eventbus.process.affinity import Affinity
from eventbus.process.open_files import exhausted as open_files_exhausted
from eventbus.settings import DatabaseSettings

A = TypeVar("A", bound=Aggregate)

PooledConnection = asyncpg.pool.PoolConnectionProxy
ACQUIRE_TIMEOUT = 5.0  # seconds
COMMAND_TIMEOUT = 30.0  # seconds

_INBOX = "INSERT INTO eventbus_inbox (event_id, group_name) VALUES ($1::uuid, $2) ON CONFLICT DO NOTHING RETURNING true"
_UNPUBLISHED = "SELECT count(*) FROM eventbus_outbox WHERE published_at IS NULL AND failed_at IS NULL"
# Rows are inserted in a fixed order, so that two batches with the same events cannot deadlock.
_INBOX_BATCH = """
INSERT INTO eventbus_inbox (event_id, group_name) SELECT id, $2 FROM unnest($1::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING RETURNING event_id
"""


class Database:
    """Reconnects by itself; every call raises Unavailable while PostgreSQL is away.

    pool_size        connections that it may have; the relay has two of its own
    statement_cache  statements that each keeps prepared; default: 100, and none behind a pooler such as PgBouncer
    schema           where all tables are; default: the search_path of the login
    command_timeout  seconds that a statement may take; None: no bound

    What is None is taken from the environment: see eventbus.settings.DatabaseSettings. Where its `direct_url` leads
    past a pooler, the relay connects there, and is woken by notifications."""

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int | None = None,
        statement_cache: int | None = None,
        schema: str | None = None,
        max_payload: int = MAX_PAYLOAD,
        command_timeout: float | None = COMMAND_TIMEOUT,
    ) -> None:
        given: dict[str, Any] = {"pool_size": pool_size, "statement_cache": statement_cache, "schema_name": schema}
        settings = DatabaseSettings(**{name: value for name, value in given.items() if value is not None})
        self._server = f"PostgreSQL at {show_url(dsn)}"
        self._connector = Connector(dsn, cache=settings.statement_cache, schema=settings.schema_name)
        self._direct = Connector(
            settings.direct_url or dsn, cache=settings.statement_cache, schema=settings.schema_name
        )
        self._look_back = settings.relay_look_back
        self._schema = settings.schema_name
        self._pool_size = settings.pool_size
        self._max_payload = max_payload
        self._command_timeout = command_timeout
        self._pool: asyncpg.Pool | None = None
        self._condition = ServerCondition(self._server)
        self._lending = Lending(self._server, self._pool_size)
        self._affinity = Affinity()
        self.history = EventStore(self.connection)
        self.replays = PostgresReplays(self.connection)
        self.recorder = PostgresHistoryWriter(self.connection)

    async def connect(self) -> None:
        """Raises Unavailable, or ConfigurationError if the login is refused or the database is not there."""
        for connector in (self._connector, self._direct):
            connector.check()
        if self._affinity.loop is None:
            self._affinity.enter()
        try:
            self._pool = await asyncpg.create_pool(
                min_size=1,
                max_size=self._pool_size,
                timeout=ACQUIRE_TIMEOUT,
                command_timeout=self._command_timeout,
                init=_set_codecs,
                reset=_leave_as_it_is,
                connection_class=driver.HonestConnection,
                connect=self._connector,
            )
        except driver.AWAY as error:
            raise Unavailable(self._server, open_files_exhausted(error) or str(error) or "no answer") from None
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, ValueError) as error:
            raise ConfigurationError(f"{self._server}: {error}") from None

    async def close(self) -> None:
        if self._affinity.forked:
            return  # these are the parent's connections
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PooledConnection]:
        """A connection of the pool. Raises Unavailable if there is none, or if it breaks inside the block; SessionEnded
        if the server ended it for what was done in the block."""
        pool = self._pool
        if pool is None:
            raise ConfigurationError("the bus is not connected: use `async with EventBus(…)`")
        self._affinity.check()
        connection = await self._acquire(pool)
        began = time.monotonic()
        try:
            with self._lending.lent():
                yield connection
        except driver.ERRORS as error:
            # What the caller raises for its own reasons passes; only the server's trouble becomes Unavailable.
            trouble = await driver.trouble(connection, error)
            if trouble is not driver.Trouble.NONE:
                if not driver.is_closed(connection):
                    connection.terminate()  # the next one may find another server
                raise await self._failed(pool, trouble, error, time.monotonic() - began) from error
            raise
        else:
            self._condition.well()
        finally:
            await _release(pool, connection)

    async def _acquire(self, pool: asyncpg.Pool) -> PooledConnection:
        self._lending.check(pool)
        try:
            return await pool.acquire(timeout=ACQUIRE_TIMEOUT)
        except driver.AWAY as error:
            if isinstance(error, TimeoutError) and self._lending.is_exhausted(pool):
                raise self._lending.exhausted(f"none became free in {ACQUIRE_TIMEOUT:g} s") from error
            if (full := open_files_exhausted(error)) is not None:
                raise Unavailable(self._server, full) from error
            raise self._condition.away(str(error) or "no connection in time") from error

    async def _failed(
        self, pool: asyncpg.Pool, trouble: driver.Trouble, error: BaseException, seconds: float
    ) -> EventBusError:
        """What to raise for a connection that was used for so long and has met this trouble."""
        if trouble is driver.Trouble.AWAY:
            await pool.expire_connections()  # the others lead to the same server
            return self._condition.away(str(error) or "no answer", writes=True)
        if reason := await why_ended(pool, error, seconds):
            return SessionEnded(f"{self._server} ended the session: {reason}")
        return self._condition.away(str(error) or "no answer", lost=True)

    @asynccontextmanager
    async def transaction(self, origin: Origin = Origin()) -> AsyncIterator[PostgresTransaction]:
        """Rows and events that commit together."""
        async with self._begun() as connection:
            tx = PostgresTransaction(connection, origin, max_payload=self._max_payload)
            yield tx
            await tx.flush()

    @asynccontextmanager
    async def inbox(self, group: str, event_id: str, origin: Origin) -> AsyncIterator[PostgresTransaction]:
        """As `transaction`, once per group and event: see Context.transaction."""
        try:
            async with self._begun() as connection:
                first = await connection.fetchval(_INBOX, event_id, group)
                tx = PostgresTransaction(connection, origin, max_payload=self._max_payload, committed=not first)
                yield tx
                await tx.flush()
                crash_points.point("inbox.commit")
            crash_points.point("inbox.committed")
        except CommittedBefore:
            return
        except BaseExceptionGroup as errors:  # a TaskGroup in the block wraps what its tasks raise
            if errors.split(CommittedBefore)[1] is not None:
                raise

    @asynccontextmanager
    async def inbox_batch(self, group: str, event_ids: Sequence[str]) -> AsyncIterator[PostgresBatchInbox]:
        """As `inbox`, for several events in one transaction: see Batch.transaction."""
        async with self._begun() as connection:
            rows = await connection.fetch(_INBOX_BATCH, list(event_ids), group)
            fresh = frozenset(str(row["event_id"]) for row in rows)
            inbox = PostgresBatchInbox(connection, group, fresh, max_payload=self._max_payload)
            yield inbox
            await inbox.flush()
            crash_points.point("inbox.commit")
        crash_points.point("inbox.committed")

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[PooledConnection]:
        """A connection in a transaction. BEGIN may take ACQUIRE_TIMEOUT at most: a frozen server must not keep a
        caller."""
        async with self.connection() as connection:
            transaction = connection.transaction()
            async with asyncio.timeout(ACQUIRE_TIMEOUT):
                await transaction.start()
            try:
                try:
                    yield connection
                except BaseException as error:
                    await _roll_back(transaction, error)
                    raise
                await transaction.commit()
            except driver.CONFLICTS as error:
                raise Conflict(f"{self._server} rolled back in favour of another transaction: {error}") from error

    async def provide_schema(self) -> None:
        """Make the schema that the tables are to be in, if one is set and is not there yet."""
        if self._schema is not None:
            async with self.connection() as connection:
                if await connection.fetchval("SELECT to_regnamespace($1)", quoted(self._schema)) is None:
                    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._schema)}")

    def outbox(self, connection: Connection, origin: Origin = Origin()) -> Outbox:
        return Outbox(connection, origin, self._max_payload)

    async def unpublished(self) -> int:
        async with self.connection() as connection:
            count: int = await connection.fetchval(_UNPUBLISHED)
            return count

    async def outbox_standing(self) -> OutboxStanding | None:
        async with self.connection() as connection:
            try:
                return await standing(connection)
            except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
                return None

    def relay(self, appender: Appender, primary: Callable[[], str]) -> Relay:
        return Relay(self._direct, appender, primary=primary, look_back=self._look_back)


async def _roll_back(transaction: asyncpg.transaction.Transaction, error: BaseException) -> None:
    """If that fails, the session is gone: what was raised because of it tells more than that."""
    try:
        await transaction.rollback()
    except driver.ERRORS as another:
        if isinstance(error, driver.ERRORS):
            raise error from error.__cause__ or another
        raise


async def _release(pool: asyncpg.Pool, connection: PooledConnection) -> None:
    """Give a connection back, or cut it if that fails, or if whoever was cancelled has left a transaction in it: behind
    a pooler, any statement is one. Nothing is raised: what has committed has committed."""
    try:
        if not driver.is_closed(connection) and connection.is_in_transaction():
            connection.terminate()  # asyncpg would log an error, and roll back in another round trip
        await pool.release(connection)
    except driver.ERRORS:
        if not driver.is_closed(connection):
            connection.terminate()


async def _leave_as_it_is(_connection: asyncpg.Connection) -> None:
    """Reset nothing when a connection comes back: that saves a round trip. asyncpg has ended what was open and
    forgotten the listeners. Settings and locks that outlive a transaction are for its author to undo, see
    Transaction.connection."""


async def _set_codecs(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=_dumps, decoder=orjson.loads)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()
