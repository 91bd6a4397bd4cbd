"""What PostgreSQL remembers of an event: when it was committed and published, and which groups committed its effect."""

from eventbus.inspection import Trace
from eventbus.transaction import Connection

_MIGRATED = "SELECT to_regclass('eventbus_outbox') IS NOT NULL AND to_regclass('eventbus_inbox') IS NOT NULL"
_OUTBOX = "SELECT type, subject, created_at, due_at, published_at FROM eventbus_outbox WHERE event_id = $1::uuid"
_INBOX = "SELECT group_name, processed_at FROM eventbus_inbox WHERE event_id = $1::uuid"
_WAITING = """
SELECT count(*) AS rows, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS seconds
FROM (SELECT created_at FROM eventbus_outbox WHERE published_at IS NULL ORDER BY position LIMIT 10000) AS waiting
"""


async def trace(connection: Connection, event_id: str) -> Trace:
    """An empty one of a database that is not migrated."""
    if not await connection.fetchval(_MIGRATED):
        return Trace()
    row = await connection.fetchrow(_OUTBOX, event_id)
    effects = {found["group_name"]: found["processed_at"] for found in await connection.fetch(_INBOX, event_id)}
    if row is None:
        return Trace(effects=effects)
    return Trace(row["type"], row["subject"], row["created_at"], row["due_at"], row["published_at"], effects)


async def waiting(connection: Connection) -> tuple[int, float]:
    """How many rows of the outbox wait for the relay, up to 10,000; and for how many seconds the oldest has."""
    row = await connection.fetchrow(_WAITING)
    assert row is not None, "an aggregate has a row"
    return row["rows"], row["seconds"]
