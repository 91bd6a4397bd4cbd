"""What the gateway may do with leads. Each change and the event that tells of it are in the caller's transaction."""

from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel

from eventbus import Transaction
from eventbus.event import uuid7
from handlers.common.errors import Conflict, Invalid, NotFound
from handlers.common.paging import Page, cut
from handlers.funnel import service as funnels
from handlers.lead import store
from handlers.lead.events import LeadCreated, LeadDeleted, LeadMovedToStep, LeadUpdated
from handlers.lead.facts import LeadFacts
from handlers.lead.models import UNREACHABLE, Lead, LeadChanges, LeadQuery, Move, NewLead


async def create(tx: Transaction, organization: str, new: NewLead) -> Lead:
    """Raises Invalid for a step or funnel that is not there, or another organization's id."""
    if new.organization_id not in (None, organization):
        raise Invalid("organizationId", "this is not the organization of your token")
    place = await funnels.locate(tx.connection, organization, new.funnel_id, new.step_id)
    values = new.model_dump(exclude={"organization_id", "funnel_id", "step_id"})
    if place is not None:
        values.update(place._asdict())
    lead = Lead.model_validate(dict(_there(await store.insert(tx.connection, organization, uuid7(), values))))
    await tx.append_to(LeadFacts, organization, str(lead.id), _created(lead), expected_version=0)
    return lead


def _created(lead: Lead) -> LeadCreated:
    return LeadCreated(
        lead_id=str(lead.id),
        organization_id=lead.organization_id,
        name=lead.name,
        email=lead.email,
        phone=lead.phone,
        status=lead.status,
        source=lead.source,
        funnel_id=_text(lead.funnel_id),
        step_id=_text(lead.step_id),
        assigned_to=lead.assigned_to,
    )


async def get(tx: Transaction, organization: str, lead_id: UUID) -> Lead:
    return Lead.model_validate(dict(_there(await store.find(tx.connection, organization, lead_id))))


async def page(tx: Transaction, organization: str, query: LeadQuery) -> Page[Lead]:
    filters = {"status": query.status, "step_id": query.step_id, "assigned_to": query.assigned_to}
    rows, cursor = cut(await store.page(tx.connection, organization, filters, query), query.limit)
    return Page[Lead](items=[Lead.model_validate(dict(row)) for row in rows], next_cursor=cursor)


async def change(tx: Transaction, organization: str, lead_id: UUID, changes: LeadChanges) -> Lead:
    """If nothing changes, there is no event. Raises Invalid if neither name, e-mail nor phone would be left."""
    before = dict(_there(await store.lock(tx.connection, organization, lead_id)))
    wanted = changes.model_dump(exclude_unset=True)
    changed = {field: value for field, value in wanted.items() if before[field] != value}
    if not changed:
        return Lead.model_validate(before)
    after = before | changed
    if not (after["name"] or after["email"] or after["phone"]):
        raise Invalid("", UNREACHABLE)
    row = _there(await store.update(tx.connection, organization, lead_id, changed))
    told = {to_camel(field): {"old": before[field], "new": value} for field, value in changed.items()}
    await _tell(tx, LeadUpdated(lead_id=str(lead_id), organization_id=organization, changes=told))
    return Lead.model_validate(dict(row))


async def move(tx: Transaction, organization: str, lead_id: UUID, to: Move) -> Lead:
    """Move the lead to any step of the organization; a step of another funnel takes the lead into that funnel.

    Raises Conflict if the lead is in that step already, Invalid if there is no such step."""
    before = _there(await store.lock(tx.connection, organization, lead_id))
    place = await funnels.locate(tx.connection, organization, None, to.step_id)
    assert place is not None, "a step was given"
    if before["step_id"] == place.step_id:
        raise Conflict("the lead is in this step already")
    row = _there(await store.update(tx.connection, organization, lead_id, place._asdict()))
    moved = LeadMovedToStep(
        lead_id=str(lead_id),
        previous_step_id=_text(before["step_id"]),
        new_step_id=str(place.step_id),
        organization_id=organization,
    )
    await _tell(tx, moved)
    return Lead.model_validate(dict(row))


async def delete(tx: Transaction, organization: str, lead_id: UUID) -> None:
    """The lead goes, and its tasks with it, open or done: without their lead they mean nothing to anyone."""
    if not await store.delete(tx.connection, organization, lead_id):
        raise NotFound("lead")
    await _tell(tx, LeadDeleted(lead_id=str(lead_id), organization_id=organization))


async def _tell(tx: Transaction, event: LeadUpdated | LeadMovedToStep | LeadDeleted) -> None:
    """No version is expected: whoever changes a lead has locked its row, so that nobody else appends meanwhile."""
    await tx.append_to(LeadFacts, event.organization_id, event.lead_id, event, expected_version=None)


def _there(row: Any) -> Any:
    if row is None:
        raise NotFound("lead")
    return row


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
