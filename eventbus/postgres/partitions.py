"""The partitions of the event store: a month each, made when they are needed, dropped when they are over.

An event's id says when it was made, but the clock behind that may be years off: only months near the present get a
partition of their own. Events of any other month are in the default partition until that month has come. The present is
what the clock of PostgreSQL says.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import asyncpg

from eventbus.contract.transaction import Connection
from eventbus.postgres import driver
from eventbus.process.safe_logging import get_logger

TABLES = ("eventbus_events", "eventbus_executions")
MONTHS_BACK, MONTHS_AHEAD = 12, 2
PATIENCE = "2s"  # then give up until another time: a statement that waits for a lock stops all that come behind it

# The high half of the number stands for what is locked, the low half is the oid of the table.
_LOCK = f"SELECT pg_advisory_xact_lock({0x6576_0004_0000_0000} + 'eventbus_events'::regclass::oid::bigint)"
_NOW = "SELECT now()"
_DEFAULT = (
    "SELECT partdefid::regclass::text FROM pg_partitioned_table WHERE partrelid = $1::regclass AND partdefid <> 0"
)
_THERE = """
SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = $1::regclass
"""

log = get_logger("eventbus.history")


def month_of(moment: datetime) -> datetime:
    """The first moment of its month, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def months_from(month: datetime, count: int) -> datetime:
    """The month that is `count` months later, or earlier if `count` is negative."""
    years, place = divmod(month.month - 1 + count, 12)
    return month.replace(year=month.year + years, month=place + 1)


async def make(connection: Connection, months: Iterable[datetime] = ()) -> None:
    """Make partitions for this month, the next one, and those of `months` that are near the present (MONTHS_BACK,
    MONTHS_AHEAD). Existing ones are left as they are. To be called inside of a transaction."""
    await connection.execute(_LOCK)
    await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    this = month_of(await connection.fetchval(_NOW))
    first, last = months_from(this, -MONTHS_BACK), months_from(this, MONTHS_AHEAD)
    wanted = sorted({this, months_from(this, 1), *(month for month in months if first <= month <= last)})
    for table in TABLES:
        there = {row["relname"] for row in await connection.fetch(_THERE, table)}
        rest = await connection.fetchval(_DEFAULT, table)
        if rest is None:
            rest = f"{table}_default"
            await connection.execute(f"CREATE TABLE {rest} PARTITION OF {table} DEFAULT")
        for month in wanted:
            if (name := _name(table, month)) not in there:
                await _make_one(connection, table, name, rest, month)


async def _make_one(connection: Connection, table: str, name: str, rest: str, month: datetime) -> None:
    """Make the partition of one month as a table that is attached, because that lets others go on writing. The rows of
    that month move into it from the default partition."""
    start, end = f"'{month.isoformat()}'", f"'{months_from(month, 1).isoformat()}'"
    await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
    moved = f"WITH moved AS (DELETE FROM {rest} WHERE made_at >= {start} AND made_at < {end} RETURNING *)"  # noqa: S608
    await connection.execute(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE")
    await connection.execute(f"{moved} INSERT INTO {name} SELECT * FROM moved")  # noqa: S608 - names of our own
    await connection.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})")


async def drop(connection: Connection, keep: timedelta) -> list[str]:
    """Drop the partitions of months that have been over for `keep`, and delete older rows from the default partition.
    Returns the names of what was dropped. To be called inside of a transaction."""
    await connection.execute(_LOCK)
    await connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}'")
    now = await connection.fetchval(_NOW)
    try:
        oldest = now - keep
    except OverflowError:  # for ever
        return []
    dropped = []
    for table in TABLES:
        names = {row["relname"] for row in await connection.fetch(_THERE, table)}
        for name in sorted(names):
            month = _month(table, name)
            if month is not None and months_from(month, 1) <= oldest:
                await connection.execute(f"DROP TABLE {name}")
                dropped.append(name)
        rest = await connection.fetchval(_DEFAULT, table)
        if rest is not None:
            await connection.execute(f"DELETE FROM {rest} WHERE made_at < $1", oldest)  # noqa: S608 - a name of its own
    return dropped


def is_missing(error: Exception) -> bool:
    """Whether a row found no partition."""
    return isinstance(error, asyncpg.CheckViolationError) and "no partition" in str(error)


def is_busy(error: Exception) -> bool:
    """Whether others were in the way, and another time will do."""
    return isinstance(error, (asyncpg.LockNotAvailableError, *driver.CONFLICTS))


def _name(table: str, month: datetime) -> str:
    return f"{table}_{month:%Y_%m}"


def _month(table: str, name: str) -> datetime | None:
    """The inverse of `_name`; None for other partitions, which are somebody else's."""
    try:
        return datetime.strptime(name.removeprefix(f"{table}_"), "%Y_%m").replace(tzinfo=UTC)
    except ValueError:
        return None
