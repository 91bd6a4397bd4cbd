"""Looking at stored events and at the outbox without reading all of them."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from eventbus.contract.codec import Fields
from eventbus.contract.transaction import Connection
from eventbus.event import unix_ms
from eventbus.postgres.outbox import fields_of

SLICES = 20  # equal parts of the time between a type's first and last event
PAGE = 200  # rows of the outbox that are read at a time

_THERE = "SELECT to_regclass($1) IS NOT NULL"
_WAITING = """
SELECT position, event_id, type, meta, data FROM eventbus_outbox
WHERE published_at IS NULL AND position > $1 ORDER BY position LIMIT $2
"""
# For any table of events with an index by type and id. _TYPES steps through it by types: DISTINCT would read every row.
_TYPES = """
WITH RECURSIVE found AS (
    (SELECT type FROM {table} ORDER BY type LIMIT 1)
    UNION ALL
    SELECT (SELECT type FROM {table} WHERE type > found.type ORDER BY type LIMIT 1)
    FROM found WHERE found.type IS NOT NULL
)
SELECT type FROM found WHERE type IS NOT NULL
"""
_SOME = "SELECT event_id, type, meta, data FROM {table} WHERE type = $1 ORDER BY event_id LIMIT $2"
_ENDS = """
SELECT (SELECT event_id FROM {table} WHERE type = $1 ORDER BY event_id LIMIT 1)::text AS first,
       (SELECT event_id FROM {table} WHERE type = $1 ORDER BY event_id DESC LIMIT 1)::text AS last
"""
_SPREAD = """
SELECT event_id, type, meta, data
FROM unnest($2::uuid[], $3::uuid[]) AS slice (since, until)
CROSS JOIN LATERAL (
    SELECT event_id, type, meta, data FROM {table} WHERE type = $1 AND event_id >= since AND event_id < until
    ORDER BY event_id LIMIT $4
) AS stored
"""


class Sample(NamedTuple):
    """Events of one type. If not `whole`, there are more: these are spread over the time from the first to the last."""

    rows: list[Fields]
    whole: bool


async def has(connection: Connection, table: str) -> bool:
    """Whether there is such a table."""
    there: bool = await connection.fetchval(_THERE, table)
    return there


async def stored_types(connection: Connection, table: str) -> list[str]:
    """All types of the table's events, sorted."""
    return [row["type"] for row in await connection.fetch(_TYPES.format(table=table))]


async def sample(connection: Connection, table: str, event_type: str, limit: int) -> Sample:
    """At most `limit` of the table's events of this type, and about that many if there are more."""
    rows = await connection.fetch(_SOME.format(table=table), event_type, limit + 1)
    if len(rows) > limit:
        slices = min(SLICES, limit)
        since, until = _slices(*await _ends(connection, table, event_type), slices)
        spread = await connection.fetch(_SPREAD.format(table=table), event_type, since, until, limit // slices)
        return Sample([fields_of(row) for row in spread], whole=False)
    return Sample([fields_of(row) for row in rows], whole=True)


async def unpublished(connection: Connection) -> AsyncIterator[Fields]:
    """Events of the outbox that have not reached their stream, oldest first."""
    position = -1
    while rows := await connection.fetch(_WAITING, position, PAGE):
        for row in rows:
            yield fields_of(row)
        position = rows[-1]["position"]


async def _ends(connection: Connection, table: str, event_type: str) -> tuple[int, int]:
    """When the first and the last event of the type were made, in ms since the epoch."""
    row = await connection.fetchrow(_ENDS.format(table=table), event_type)
    assert row is not None, "a query without FROM has a row"
    return unix_ms(row["first"]), unix_ms(row["last"])


def _slices(first: int, last: int, count: int) -> tuple[list[str], list[str]]:
    """Ids at which equal parts of this time begin and end."""
    width = -(-(last + 1 - first) // count)
    bounds = [_id(first + number * width) for number in range(count + 1)]
    return bounds[:-1], bounds[1:]


def _id(ms: int) -> str:
    """The lowest id of a millisecond: it stands before those of all events that were made then."""
    return f"{ms:012x}".ljust(32, "0")
