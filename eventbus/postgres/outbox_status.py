"""How the outbox stands: what waits, what is set aside and why, and whether a relay is at work; and what people do
about rows that were set aside."""

from collections.abc import Sequence

from eventbus.contract.inspection import OutboxStanding, RowAside, RowsWaiting
from eventbus.contract.transaction import Connection
from eventbus.postgres.relay import at_work

MOST = 10_000  # rows that are counted

_WAITING = """
SELECT split_part(type, '.', 1) AS stream, count(*) AS rows, max(error) AS error,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS seconds
FROM (SELECT type, error, created_at FROM eventbus_outbox
      WHERE published_at IS NULL AND failed_at IS NULL ORDER BY position LIMIT $1) AS waiting
GROUP BY stream ORDER BY seconds DESC
"""
_ASIDE = """
SELECT position, event_id::text AS event_id, type, subject, organization, created_at, failed_at, error
FROM eventbus_outbox WHERE failed_at IS NOT NULL ORDER BY position LIMIT $1
"""
_ASIDE_COUNT = "SELECT count(*) FROM (SELECT FROM eventbus_outbox WHERE failed_at IS NOT NULL LIMIT $1) AS aside"
_NAMED = "failed_at IS NOT NULL AND ($1::text[] IS NULL OR position::text = ANY($1) OR event_id::text = ANY($1))"
_RETRY = f"""
WITH again AS (UPDATE eventbus_outbox SET failed_at = NULL, error = NULL WHERE {_NAMED} RETURNING position)
SELECT count(*) FROM again
"""  # noqa: S608 - constants
_DISCARD = f"WITH gone AS (DELETE FROM eventbus_outbox WHERE {_NAMED} RETURNING position) SELECT count(*) FROM gone"  # noqa: S608


async def standing(connection: Connection, first: int = 0) -> OutboxStanding:
    rows = await connection.fetch(_WAITING, MOST)
    waiting = [RowsWaiting(row["stream"], row["rows"], row["seconds"], row["error"]) for row in rows]
    count: int = await connection.fetchval(_ASIDE_COUNT, MOST)
    found = await aside(connection, first) if first and count else []
    return OutboxStanding(waiting, count, found, await at_work(connection))


async def aside(connection: Connection, limit: int) -> list[RowAside]:
    """The first rows that were set aside."""
    rows = await connection.fetch(_ASIDE, limit)
    return [RowAside(**{name: row[name] for name in RowAside._fields}) for row in rows]


async def retry(connection: Connection, names: Sequence[str] | None) -> int:
    """Let the relay try rows again that were set aside: those with these positions or event ids, or all for None.
    Returns their number."""
    count: int = await connection.fetchval(_RETRY, names)
    return count


async def discard(connection: Connection, names: Sequence[str] | None) -> int:
    """Delete rows that were set aside: those with these positions or event ids, or all for None. Returns their
    number."""
    count: int = await connection.fetchval(_DISCARD, names)
    return count
