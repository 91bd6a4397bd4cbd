"""Every event about a lead, with what handled it: the outbox beside the inbox.

Both are pruned some days after an event was published (eventbus.postgres.relay): this is the recent past.
"""

from collections.abc import Sequence
from uuid import UUID

import orjson

from eventbus import Connection, Transaction
from eventbus.postgres.outbox import envelope_of
from eventbus.transaction import Row
from handlers.errors import NotFound
from handlers.lead import store
from handlers.lead.models import LeadEvent, TimelineQuery
from handlers.paging import Page, cut

_SELECT = """
SELECT position, event_id, type, meta, data, due_at,
       coalesce((SELECT jsonb_agg(jsonb_build_object('group', group_name, 'at', processed_at)
                                  ORDER BY processed_at, group_name)
                 FROM eventbus_inbox WHERE eventbus_inbox.event_id = eventbus_outbox.event_id), '[]') AS handled_by
FROM eventbus_outbox
WHERE organization = $1 AND subject = $2 AND position > $3
ORDER BY position LIMIT $4
"""


async def page(tx: Transaction, organization: str, lead_id: UUID, query: TimelineQuery) -> Page[LeadEvent]:
    """Oldest first. Raises NotFound if there is no such lead (any more)."""
    if await store.find(tx.connection, organization, lead_id) is None:
        raise NotFound("lead")
    rows = await _select(tx.connection, organization, lead_id, query)
    shown, cursor = cut(rows, query.limit, key="position")
    return Page[LeadEvent](items=[_event(row) for row in shown], next_cursor=cursor)


async def _select(connection: Connection, organization: str, lead_id: UUID, query: TimelineQuery) -> Sequence[Row]:
    return await connection.fetch(_SELECT, organization, str(lead_id), query.cursor or 0, query.limit + 1)


def _event(row: Row) -> LeadEvent:
    envelope = envelope_of(row)
    return LeadEvent.model_validate(
        {
            "id": envelope.id,
            "type": envelope.type,
            "time": envelope.time,
            "due_at": row["due_at"],
            "data": orjson.loads(envelope.data),
            "metadata": envelope.metadata,
            "correlation_id": envelope.correlation,
            "causation_id": envelope.causation_id,
            "handled_by": row["handled_by"],
        }
    )
