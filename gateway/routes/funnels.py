"""/api/funnels: admins write, everybody reads."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.common.paging import Page, PageQuery
from handlers.funnel import service
from handlers.funnel.models import Funnel, NewFunnel

funnels = Routes("/api/funnels")


EXAMPLE = {
    "name": "Sales",
    "steps": [
        {
            "name": "New",
            "taskTemplates": [{"title": "Call", "dueInHours": 24}, {"title": "Send offer", "after": "Call"}],
        },
        {"name": "Won"},
    ],
}


@funnels.post(status=201, location="/api/funnels/{id}", roles=frozenset({"admin"}), example=EXAMPLE)
async def create_funnel(call: Call, body: NewFunnel) -> Funnel:
    """Create a funnel with its steps and their task templates."""
    return await service.create(call.tx, call.organization, body)


@funnels.get()
async def list_funnels(call: Call, query: PageQuery) -> Page[Funnel]:
    """Funnels, newest first."""
    return await service.page(call.tx, call.organization, query)


@funnels.get("/{funnel_id}")
async def get_funnel(call: Call, funnel_id: UUID) -> Funnel:
    """One funnel."""
    return await service.get(call.tx, call.organization, funnel_id)
