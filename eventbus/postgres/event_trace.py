"""What PostgreSQL remembers of an event: when it was committed and published, which groups committed its effect, and
what else belongs to the same request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson

from eventbus.contract.history import Selection
from eventbus.contract.inspection import Trace
from eventbus.contract.traces import Found, FoundIn
from eventbus.contract.transaction import Connection, Row
from eventbus.event import Envelope, unix_ms
from eventbus.postgres.history import conditions
from eventbus.postgres.outbox import envelope_of

LEAN = 16_384  # bytes; data of an event of a trace is read up to this size, and larger data not at all
LOOK_AHEAD = 10_000  # rows of the outbox that are looked through for what an event has caused
MARGIN = 60_000  # ms by which the clock that dated the cause may have been fast

_MIGRATED = "SELECT to_regclass('eventbus_outbox') IS NOT NULL AND to_regclass('eventbus_inbox') IS NOT NULL"
_OUTBOX = """
SELECT type, subject, created_at, due_at, published_at, to_jsonb(row) ->> 'error' AS error  -- a database may be older
FROM eventbus_outbox AS row WHERE event_id = $1::uuid
"""
_INBOX = "SELECT group_name, processed_at FROM eventbus_inbox WHERE event_id = $1::uuid"
_ENVELOPE = "SELECT event_id, type, meta, data FROM eventbus_outbox WHERE event_id = $1::uuid"
# Ids rise with time. `meta` is searched as text: PostgreSQL does not take it for JSON if it holds a null character.
_LATER = """
SELECT count(*) AS looked_at,
       coalesce(array_agg(event_id::text ORDER BY event_id) FILTER (
           WHERE organization = $3 AND position('"causationId":"' || $1 || '"' IN meta) > 0), '{}') AS effects
FROM (SELECT event_id, organization, meta FROM eventbus_outbox WHERE event_id > $2::uuid ORDER BY event_id LIMIT $4)
     AS later
"""
# An event that is not recorded yet is among the rows behind the first event, those that wait, or those just published.
# Each of the three is bounded by LOOK_AHEAD; the last two have an index of their own.
_RELATED = """
WITH later AS MATERIALIZED (
    SELECT position FROM eventbus_outbox WHERE event_id >= $1::uuid ORDER BY event_id LIMIT $5
), waiting AS MATERIALIZED (
    SELECT position FROM eventbus_outbox WHERE published_at IS NULL ORDER BY position LIMIT $5
), fresh AS MATERIALIZED (
    SELECT position FROM eventbus_outbox WHERE published_at IS NOT NULL ORDER BY published_at DESC LIMIT $5
)
SELECT event_id, type, meta, CASE WHEN octet_length(data) <= $6 THEN data ELSE '' END AS data, due_at, published_at
FROM eventbus_outbox
WHERE position IN (SELECT position FROM later UNION SELECT position FROM waiting UNION SELECT position FROM fresh)
  AND (event_id = $2::uuid OR position($3 IN meta) > 0)
  AND ($4::text IS NULL OR organization = $4)
ORDER BY event_id LIMIT $7
"""


async def trace(connection: Connection, event_id: str) -> Trace:
    """What is known of an event; an empty Trace if the database is not migrated."""
    if not await connection.fetchval(_MIGRATED):
        return Trace()
    row = await connection.fetchrow(_OUTBOX, event_id)
    effects = {found["group_name"]: found["processed_at"] for found in await connection.fetch(_INBOX, event_id)}
    if row is None:
        return Trace(effects=effects)
    known = (row["type"], row["subject"], row["created_at"], row["due_at"], row["published_at"])
    return Trace(*known, effects, row["error"])


async def stored_envelope(connection: Connection, event_id: str) -> Envelope | None:
    """The envelope as it stands in the outbox; None if the event did not go through it, or its row has been pruned."""
    row = await connection.fetchrow(_ENVELOPE, event_id)
    return None if row is None else envelope_of(row)


async def effects(connection: Connection, event_id: str, organization: str) -> tuple[list[str], bool]:
    """(ids of events in the outbox that this one caused, whether all rows were looked at). At most LOOK_AHEAD rows are
    looked at, from the event's own time on."""
    since = f"{max(0, unix_ms(event_id) - MARGIN):012x}".ljust(32, "0")
    row = await connection.fetchrow(_LATER, event_id, since, organization, LOOK_AHEAD)
    assert row is not None, "an aggregate has a row"
    return list(row["effects"]), row["looked_at"] < LOOK_AHEAD


async def gather(
    connection: Connection, first: Envelope, organization: str | None, limit: int
) -> tuple[list[Found], bool]:
    """(the events with the correlation id of `first`, whether that is all of them). At most `limit` are returned: those
    that are recorded, and those that wait in the outbox or were just published; of one organization, or of all for
    None. Data of more than LEAN bytes is left out: it is empty.

    first  one of the events. Older rows of the outbox are found only while they wait, or were just published"""
    recorded = await _recorded(connection, first.correlation, organization, limit + 1)
    known = {str(row["event_id"]) for row in recorded}
    root = _event_id(first.correlation)
    oldest = min([*known, first.id, *([root] if root else [])])
    meant = _attribute("correlationId", first.correlation)
    values = (oldest, root, meant, organization, LOOK_AHEAD, LEAN, limit + 1)
    moving = [row for row in await connection.fetch(_RELATED, *values) if str(row["event_id"]) not in known]
    found = [*(Found(envelope_of(row)) for row in recorded), *map(_moving, moving)]
    # The search by text, and by a column that holds no long ids whole, may have found other correlation ids by mistake.
    found = [one for one in found if one.envelope.correlation == first.correlation]
    return found[:limit], len(found) <= limit


async def _recorded(connection: Connection, correlation_id: str, organization: str | None, limit: int) -> Sequence[Row]:
    where, values = conditions(Selection(organization=organization, correlation_id=correlation_id), 3)
    query = f"""
    SELECT event_id, type, meta, CASE WHEN octet_length(data) <= $1 THEN data ELSE '' END AS data
    FROM eventbus_events WHERE {where} ORDER BY event_id LIMIT $2
    """  # noqa: S608 - of parts written here
    return await connection.fetch(query, LEAN, limit, *values)


def _moving(row: Row) -> Found:
    due: datetime | None = row["due_at"]
    if row["published_at"] is None:
        place = FoundIn.OUTBOX
    else:
        place = FoundIn.SCHEDULED if due is not None and due > datetime.now(UTC) else FoundIn.STREAM
    return Found(envelope_of(row), place, due)


def _attribute(name: str, value: str) -> str:
    """An attribute as it is written in `meta`, to be searched as text: see _LATER."""
    return f'"{name}":{orjson.dumps(value).decode()}'


def _event_id(text: str) -> str | None:
    """The first event's id, if the correlation id is one: it is where nobody gave another. None if it is no event
    id."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
