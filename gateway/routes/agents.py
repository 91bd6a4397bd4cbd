"""/api/agents: each user sees his own."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.agent import service
from handlers.agent.models import Agent, NewAgent
from handlers.common.paging import Page, PageQuery

agents = Routes("/api/agents")


@agents.post(status=201, location="/api/agents/{id}")
async def create_agent(call: Call, body: NewAgent) -> Agent:
    """Create an agent."""
    return await service.create(call.tx, call.organization, call.caller.user, body)


@agents.get()
async def list_agents(call: Call, query: PageQuery) -> Page[Agent]:
    """The caller's agents, newest first."""
    return await service.page(call.tx, call.organization, call.caller.user, query)


@agents.get("/{agent_id}")
async def get_agent(call: Call, agent_id: UUID) -> Agent:
    """One agent."""
    return await service.get(call.tx, call.organization, call.caller.user, agent_id)


@agents.delete("/{agent_id}")
async def delete_agent(call: Call, agent_id: UUID) -> None:
    """Delete an agent; what was said to it stays."""
    await service.delete(call.tx, call.organization, call.caller.user, agent_id)
