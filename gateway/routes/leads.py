"""/api/leads, and /crm/leads just the same."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.common.paging import Page, PageQuery
from handlers.lead import service, timeline
from handlers.lead.models import Lead, LeadChanges, LeadEvent, LeadQuery, Move, NewLead, TimelineQuery
from handlers.task import service as tasks
from handlers.task.models import Task

leads = Routes("/api/leads", "/crm/leads")


@leads.post(
    status=201, location="/api/leads/{id}", example={"name": "Lea", "email": "lea@example.com", "company": "Example"}
)
async def create_lead(call: Call, body: NewLead) -> Lead:
    """Take in a lead."""
    return await service.create(call.tx, call.organization, body)


@leads.get()
async def list_leads(call: Call, query: LeadQuery) -> Page[Lead]:
    """Leads, newest first."""
    return await service.page(call.tx, call.organization, query)


@leads.get("/{lead_id}")
async def get_lead(call: Call, lead_id: UUID) -> Lead:
    """One lead."""
    return await service.get(call.tx, call.organization, lead_id)


@leads.patch("/{lead_id}")
async def change_lead(call: Call, lead_id: UUID, body: LeadChanges) -> Lead:
    """Change what is given; null empties a field."""
    return await service.change(call.tx, call.organization, lead_id, body)


@leads.delete("/{lead_id}")
async def delete_lead(call: Call, lead_id: UUID) -> None:
    """Delete a lead and its tasks."""
    await service.delete(call.tx, call.organization, lead_id)


@leads.post("/{lead_id}/move")
async def move_lead(call: Call, lead_id: UUID, body: Move) -> Lead:
    """Move a lead to another step."""
    return await service.move(call.tx, call.organization, lead_id, body)


@leads.get("/{lead_id}/tasks")
async def list_tasks_of_lead(call: Call, lead_id: UUID, query: PageQuery) -> Page[Task]:
    """A lead's tasks, newest first."""
    return await tasks.page_of_lead(call.tx, call.organization, lead_id, query)


@leads.get("/{lead_id}/events")
async def list_events_of_lead(call: Call, lead_id: UUID, query: TimelineQuery) -> Page[LeadEvent]:
    """Every event about a lead, oldest first, with the groups that have handled it."""
    return await timeline.page(call.tx, call.organization, lead_id, query)
