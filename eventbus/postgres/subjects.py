"""All that is known of the events about one thing, wherever it is kept: events on their way are in the outbox alone,
events published straight to Redis in the event store alone, and events older than both keep with their aggregate."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from eventbus.contract.aggregates import Aggregate
from eventbus.contract.transaction import Connection, Row
from eventbus.event import Envelope
from eventbus.postgres.history import made
from eventbus.postgres.outbox import envelope_of

_BEGINNING = UUID(int=0)

# Each part is cut after as many rows as are wanted, so that their union has the first of all. An event that several
# parts have comes once, with the `due_at` and the `version` that one of them alone knows.
_ABOUT = """
SELECT DISTINCT ON (event_id) event_id, type, meta, data,
       max(due_at) OVER same AS due_at, max(version) OVER same AS version
FROM (
    (SELECT event_id, type, meta, data, due_at, NULL::bigint AS version FROM eventbus_outbox
     WHERE organization = $1 AND subject = $2 AND event_id > $4 AND event_id <> ALL($5::uuid[])
     ORDER BY event_id LIMIT $6)
    UNION ALL
    (SELECT event_id, type, meta, data, NULL, NULL FROM eventbus_events
     WHERE organization = $1 AND subject = $2 AND event_id > $4 AND event_id <> ALL($5::uuid[]) AND made_at >= $7
     ORDER BY event_id LIMIT $6)
    UNION ALL
    (SELECT event_id, type, meta, data, NULL, version FROM eventbus_aggregate_events
     WHERE organization = $1 AND id = $2 AND name = $3 AND event_id > $4 AND event_id <> ALL($5::uuid[])
     ORDER BY event_id LIMIT $6)
) AS known
WINDOW same AS (PARTITION BY event_id)
ORDER BY event_id LIMIT $6
"""


class Known(NamedTuple):
    """`due_at`: when a delayed event is due, while the outbox knows. `version`: the one that it led its aggregate
    to."""

    envelope: Envelope
    due_at: datetime | None
    version: int | None


async def about(
    connection: Connection,
    organization: str,
    subject: str,
    aggregate: type[Aggregate],
    *,
    behind: UUID = _BEGINNING,
    but: Collection[UUID] = (),
    since: datetime | None = None,
    limit: int = 100,
) -> list[Known]:
    """The first `limit` events in the order of their ids, which is that of the times at which they were made.

    behind  an id: only events with later ids
    but     ids among those, of events that are not wanted
    since   when the first of them can have been made: older ones need not be looked for
    """
    earliest = made(str(behind))
    earliest = earliest if since is None else max(earliest, since)
    rows = await connection.fetch(
        _ABOUT, organization, subject, aggregate.aggregate_name, behind, list(but), limit, earliest
    )
    return [_known(row) for row in rows]


def _known(row: Row) -> Known:
    return Known(envelope_of(row), row["due_at"], row["version"])
