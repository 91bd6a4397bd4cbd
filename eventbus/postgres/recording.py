"""Writing the event store: with COPY, many rows at a time, each event once.

The COPY goes straight into the table. Where it meets an id that is stored already, which is rare, the same rows go in
by one statement that passes over such ids.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import asyncpg
import asyncpg.pool

from eventbus.contract.history import Execution
from eventbus.contract.tap import Passing
from eventbus.errors import Reject
from eventbus.postgres import partitions
from eventbus.postgres.history import column, made
from eventbus.postgres.partitions import month_of
from eventbus.process import crash_points
from eventbus.process.safe_logging import get_logger

Connect = Callable[[], AbstractAsyncContextManager[asyncpg.pool.PoolConnectionProxy]]
Record = tuple[Any, ...]  # a row: what PostgreSQL holds

_EVENTS = "eventbus_events"
_EVENT = {
    "event_id": "uuid",
    "made_at": "timestamptz",
    "type": "text",
    "organization": "text",
    "subject": "text",
    "correlation_id": "text",
    "causation_id": "text",
    "meta": "text",
    "data": "text",
}
_EXECUTIONS = "eventbus_executions"
_EXECUTION = {
    "event_id": "uuid",
    "made_at": "timestamptz",
    "execution_id": "uuid",
    "group_name": "text",
    "attempt": "integer",
    "outcome": "text",
    "seconds": "double precision",
    "error": "text",
    "finished_at": "timestamptz",
}
# Errors that lie in a row itself: they would come again the next time.
_POISON = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, asyncpg.NotNullViolationError, UnicodeError)
# Errors between two writers of the same events at the same time.
_COLLISION = (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError)

log = get_logger("eventbus.history")


class PostgresHistoryWriter:
    """eventbus.contract.history.HistoryWriter, on a pool."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._months: set[datetime] = set()  # months that have a partition, or need none

    async def record(self, events: Sequence[Passing]) -> None:
        rows, kept = [], []
        for each in events:
            try:
                rows.append(_event_row(each))
            except ValueError as error:
                each.fail(Reject(f"PostgreSQL cannot hold it: {error}"))
            else:
                kept.append(each)
        crash_points.point("history.record")
        refused = await self._write(_EVENTS, _EVENT, rows)
        for place, reason in refused.items():
            kept[place].fail(Reject(f"PostgreSQL cannot hold it: {reason}"))
        crash_points.point("history.recorded")

    async def note(self, executions: Sequence[tuple[str, Execution]]) -> None:
        refused = await self._write(_EXECUTIONS, _EXECUTION, [_execution_row(*each) for each in executions])
        for reason in refused.values():
            log.error("an execution cannot be recorded", error=str(reason))

    async def prepare(self) -> None:
        """Make the partitions that are needed next. If others are in the way nothing is done: another time will do."""
        await self._exclusively(partitions.make)

    async def expire(self, keep: timedelta) -> None:
        async def drop(connection: asyncpg.pool.PoolConnectionProxy) -> None:
            for name in await partitions.drop(connection, keep):
                log.info("history dropped", table=name)

        await self._exclusively(drop)

    async def _exclusively(self, work: Callable[[asyncpg.pool.PoolConnectionProxy], Awaitable[None]]) -> None:
        async with self._connect() as connection:
            try:
                async with connection.transaction():
                    await work(connection)
            except asyncpg.PostgresError as error:
                if not partitions.is_busy(error):
                    raise

    async def _write(self, table: str, columns: dict[str, str], rows: list[Record]) -> dict[int, Exception]:
        """Write rows. Returns why PostgreSQL refused some for what is in them, by their places; all others are
        stored."""
        if not rows:
            return {}
        async with self._connect() as connection:
            await self._make_room(connection, rows)
            try:
                await connection.copy_records_to_table(table, records=rows, columns=[*columns])
            except (*_COLLISION, *_POISON):
                return await _insert(connection, table, columns, rows)
        return {}

    async def _make_room(self, connection: asyncpg.pool.PoolConnectionProxy, rows: list[Record]) -> None:
        months = {month_of(made_at) for made_at in {row[1] for row in rows}}
        if months <= self._months:
            return
        try:
            async with connection.transaction():
                await partitions.make(connection, months)
        except asyncpg.InsufficientPrivilegeError as error:
            if not self._months:
                mend = "see `eventbus doctor`"
                log.warning("history goes into the default partition", reason=str(error), mend=mend)
        self._months |= months


async def _insert(
    connection: asyncpg.pool.PoolConnectionProxy, table: str, columns: dict[str, str], rows: list[Record]
) -> dict[int, Exception]:
    """Insert rows by one statement that passes over ids already stored, and in halves where something in it is refused.
    Returns as `_write` does. Rows are sorted by id, so that two writers of the same events cannot deadlock."""
    places = sorted(range(len(rows)), key=lambda place: rows[place][0])
    parts = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), 1))
    names = ", ".join(columns)
    statement = f"INSERT INTO {table} ({names}) SELECT * FROM unnest({parts}) ON CONFLICT DO NOTHING"  # noqa: S608
    refused: dict[int, Exception] = {}
    waiting = [places]
    while waiting:
        some = waiting.pop()
        try:
            await connection.execute(statement, *map(list, zip(*(rows[place] for place in some), strict=True)))
        except _POISON as error:
            if len(some) == 1:
                refused[some[0]] = error
            else:
                half = len(some) // 2
                waiting += [some[half:], some[:half]]
    return refused


def _event_row(each: Passing) -> Record:
    """Raises ValueError for what is no text that PostgreSQL can hold."""
    envelope, fields = each.envelope, each.fields
    event_id, event_type, data, subject, organization, correlation_id, causation_id, *_ = envelope
    meta = fields[b"meta"]
    if b"\0" in data or b"\0" in meta:
        raise ValueError("a byte of it is zero")
    return (
        event_id,
        _made(event_id[:13]),
        column(event_type),
        column(organization),
        column(subject),
        column(correlation_id or event_id),
        column(causation_id),
        meta.decode(),
        data.decode(),
    )


def _execution_row(execution_id: str, execution: Execution) -> Record:
    event_id, group, attempt, outcome, seconds, error, finished_at = execution
    error = error and error.encode(errors="backslashreplace").decode().replace("\0", "")
    return event_id, made(event_id), execution_id, group, attempt, outcome, seconds, error, finished_at


@lru_cache(4096)
def _made(head: str) -> datetime:
    """The time in an id, by the first 13 characters of it. Kept in a cache: events of one millisecond share it."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(head[:8] + head[9:], 16))
