"""What the gateway may do with agents. Another user's agent counts as not there."""

from uuid import UUID

from eventbus import Transaction
from eventbus.event import uuid7
from handlers.agent import store
from handlers.agent.models import Agent, NewAgent
from handlers.common.errors import NotFound
from handlers.common.paging import Page, PageQuery, cut


async def create(tx: Transaction, organization: str, user: str, new: NewAgent) -> Agent:
    row = await store.insert(tx.connection, organization, user, uuid7(), new)
    assert row is not None, "INSERT … RETURNING"
    return Agent.model_validate(dict(row))


async def get(tx: Transaction, organization: str, user: str, agent_id: UUID) -> Agent:
    row = await store.find(tx.connection, organization, user, agent_id)
    if row is None:
        raise NotFound("agent")
    return Agent.model_validate(dict(row))


async def page(tx: Transaction, organization: str, user: str, query: PageQuery) -> Page[Agent]:
    rows, cursor = cut(await store.page(tx.connection, organization, user, query), query.limit)
    return Page[Agent](items=[Agent.model_validate(dict(row)) for row in rows], next_cursor=cursor)


async def delete(tx: Transaction, organization: str, user: str, agent_id: UUID) -> None:
    """Past messages to the agent stay; messages to it that still wait become dead letters."""
    if not await store.delete(tx.connection, organization, user, agent_id):
        raise NotFound("agent")
