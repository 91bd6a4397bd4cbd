"""Every event about a lead, with what handled it: those that are recorded, and those that still wait to be.

The events come from the lead's own facts (handlers.lead.facts), the event store and the outbox. What groups made of
them comes from the recorded executions, or from the inbox, which knows of an effect as soon as it is there.
"""

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from operator import attrgetter
from uuid import UUID

from pydantic_core import from_json

from eventbus import Transaction
from eventbus.contract.history import Execution
from eventbus.postgres.history import executions
from eventbus.postgres.subjects import Known, about
from handlers.common.errors import NotFound
from handlers.common.paging import Page
from handlers.lead import store
from handlers.lead.facts import LeadFacts
from handlers.lead.models import Handled, LeadEvent, TimelineQuery
from handlers.lead.timeline_cursor import TimelineCursor

CLOCKS = timedelta(days=1)  # by which clocks may differ: no event about a lead is older than the lead by more than this


async def page(tx: Transaction, organization: str, lead_id: UUID, query: TimelineQuery) -> Page[LeadEvent]:
    """Oldest first, each event once. What arrives while somebody pages is still seen, unless it arrives more than a
    minute late. Raises NotFound if there is no such lead (any more)."""
    lead = await store.find(tx.connection, organization, lead_id)
    if lead is None:
        raise NotFound("lead")
    cursor = query.cursor or TimelineCursor()
    found = await about(
        tx.connection,
        organization,
        str(lead_id),
        LeadFacts,
        behind=cursor.behind,
        but=cursor.seen,
        since=lead["created_at"] - CLOCKS,
        limit=query.limit + 1,
    )
    shown, more = found[: query.limit], len(found) > query.limit
    ids = [known.envelope.id for known in shown]
    handled = _last_of_each(await executions(tx.connection, ids))
    return Page[LeadEvent](
        items=[_event(known, handled.get(known.envelope.id, {}).values()) for known in shown],
        next_cursor=cursor.after([UUID(each) for each in ids], time.time()).encode() if more else None,
    )


def _last_of_each(executed: Sequence[Execution]) -> dict[str, dict[str, Handled]]:
    """By event and group, what came of the last execution. `executed`: in the order in which they ended."""
    found: dict[str, dict[str, Handled]] = {}
    for execution in executed:
        found.setdefault(execution.event_id, {})[execution.group] = Handled(
            group=execution.group,
            at=execution.finished_at,
            outcome=execution.outcome,
            attempts=execution.attempt,
            error=execution.error,
        )
    return found


def _event(known: Known, handled: Iterable[Handled]) -> LeadEvent:
    envelope = known.envelope
    return LeadEvent.model_validate(
        {
            "id": envelope.id,
            "type": envelope.type,
            "time": envelope.time,
            "due_at": known.due_at,
            "version": known.version,
            "data": from_json(envelope.data),
            "metadata": envelope.metadata,
            "correlation_id": envelope.correlation,
            "causation_id": envelope.causation_id,
            "handled_by": sorted(handled, key=attrgetter("at", "group")),
        }
    )
