"""Group `lead`: orders that concern one lead. For a lead that is gone nothing is done.

No connection is held while an outside service answers: the lead is read before the call, and the result is written, or
noted, after it.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eventbus import Backoff, Connection, Context, Group, Reject, RetryPolicy, Transaction
from eventbus.contract.transaction import Row
from handlers.common.fields import known_id
from handlers.common.once import is_done, note_done
from handlers.email.events import SendBulk
from handlers.lead import enrichment, store
from handlers.lead.events import CalculateScore, EnrichLead, LeadOrder, SendFollowUp, SyncToCrm
from handlers.lead.models import Lead
from handlers.lead.score import Profile, score
from handlers.lead.sync import push_lead
from handlers.partners.calls import HTTP
from handlers.partners.services import SERVICES

FOLLOW_UP_SUBJECT = "Can we help you?"
FOLLOW_UP = (
    "You got in touch with us some time ago, and we would like to know whether there is anything left that we can do "
    "for you.\n\nJust answer this message."
)

Read = Callable[[Connection, str, UUID], Awaitable[Row | None]]

lead = Group("lead", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)), concurrency=3)


@lead.on(CalculateScore)
async def calculate_score(event: CalculateScore, ctx: Context) -> None:
    """Writes leads.score."""
    async with ctx.transaction() as tx:
        row = await _row(event, tx, store.lock)
        if row is None:
            return
        points = score(Profile(row["name"], row["email"], row["phone"], row["company"], row["source"]))
        await store.update(tx.connection, event.organization_id, row["id"], {"score": points})


@lead.on(EnrichLead)
async def enrich(event: EnrichLead, ctx: Context) -> None:
    """Writes leads.enrichment. `fields`: which of the lead's fields are looked at."""
    fields = _chosen(event.fields, enrichment.FIELDS)
    found = await _look(event, ctx)
    if found is None:
        return
    url = (await ctx.use(SERVICES)).enrichment_url
    if url:
        source, new = (
            enrichment.PROVIDER,
            await enrichment.ask_provider(await ctx.use(HTTP), url, found, fields, key=ctx.event_id),
        )
    else:
        source, new = enrichment.DERIVED, enrichment.derive(found, fields)
    async with ctx.transaction() as tx:
        row = await store.lock(tx.connection, event.organization_id, found["id"])
        if row is not None:
            merged = enrichment.merge(row["enrichment"], new, source=source, at=datetime.now(UTC))
            await store.update(tx.connection, event.organization_id, row["id"], {"enrichment": merged})


@lead.on(SyncToCrm)
async def sync_to_crm(event: SyncToCrm, ctx: Context) -> None:
    """`fields`: which of the lead's fields are sent, besides its id and organization. No handler orders a sync: only a
    person does, or a program of the organization."""
    names = [field.alias or name for name, field in Lead.model_fields.items()]
    fields = None if event.fields is None else _chosen(event.fields, names)
    found = await _look(event, ctx)
    if found is None:
        return
    services, session = await ctx.use(SERVICES), await ctx.use(HTTP)
    await push_lead(session, services, Lead.model_validate(found), fields, event_id=ctx.event_id)
    await note_done(ctx)


@lead.on(SendFollowUp)
async def send_follow_up(event: SendFollowUp, ctx: Context) -> None:
    """Orders a mail to the lead. It is an email.send_bulk to this one address: only that kind brings its own text.
    Raises Reject for a lead without an address: somebody wanted the lead to hear from us, and it will not."""
    async with ctx.transaction() as tx:
        row = await _row(event, tx, store.find)
        if row is None:
            return
        if row["email"] is None:
            raise Reject("the lead has no e-mail address to send a follow-up to: add one, and replay this")
        said = {"subject": FOLLOW_UP_SUBJECT, "message": FOLLOW_UP, "name": row["name"]}
        order = SendBulk(to=[row["email"]], data=said)
        await tx.publish(order, key=str(row["id"]), organization=event.organization_id)


async def _look(event: LeadOrder, ctx: Context) -> dict[str, Any] | None:
    """The lead's row; None if the lead is gone, or if another delivery of this event has been worked off."""
    if await is_done(ctx):
        return None
    async with ctx.side_transaction() as tx:
        row = await _row(event, tx, store.find)
    return None if row is None else dict(row)


async def _row(event: LeadOrder, tx: Transaction, read: Read) -> Row | None:
    """The lead that an order is about, as `read` finds it; None if there is none (any more)."""
    lead_id = known_id(event.lead_id)
    return None if lead_id is None else await read(tx.connection, event.organization_id, lead_id)


def _chosen(fields: Sequence[str] | None, known: Collection[str]) -> Collection[str]:
    """`fields`, or all that are known if it is None. Raises Reject for an unknown field."""
    unknown = sorted(set(fields or ()) - set(known))
    if unknown:
        raise Reject(f"there are no fields {', '.join(map(repr, unknown))}: choose among {', '.join(known)}")
    return known if fields is None else fields
