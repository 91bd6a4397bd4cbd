"""What the gateway may do with connections."""

from uuid import UUID

from eventbus import Transaction
from eventbus.event import uuid7
from handlers.agent import store as agents
from handlers.channel import store
from handlers.channel.models import ChannelConnection, NewConnection
from handlers.common.errors import Conflict, Invalid, NotFound
from handlers.common.paging import Page, PageQuery, cut
from handlers.whatsapp.events import ConnectionEstablished


async def create(tx: Transaction, organization: str, user: str, new: NewConnection) -> ChannelConnection:
    """Raises Invalid for an agent that is not the user's, Conflict if the account is connected already, here or in
    another organization."""
    if await agents.find(tx.connection, organization, user, new.agent_id) is None:
        raise Invalid("agentId", "there is no such agent")
    row = await store.insert(tx.connection, organization, uuid7(), user, new)
    if row is None:
        raise Conflict("this account is connected already")
    created = ChannelConnection.model_validate(dict(row))
    if created.channel == "whatsapp":
        established = ConnectionEstablished(connection_id=str(created.id), organization_id=organization)
        await tx.publish(established, key=established.connection_id)
    return created


async def page(tx: Transaction, organization: str, query: PageQuery) -> Page[ChannelConnection]:
    rows, cursor = cut(await store.page(tx.connection, organization, query), query.limit)
    return Page[ChannelConnection](
        items=[ChannelConnection.model_validate(dict(row)) for row in rows], next_cursor=cursor
    )


async def get(tx: Transaction, organization: str, connection_id: UUID) -> ChannelConnection:
    row = await store.find(tx.connection, organization, connection_id)
    if row is None:
        raise NotFound("connection")
    return ChannelConnection.model_validate(dict(row))


async def delete(tx: Transaction, organization: str, connection_id: UUID) -> None:
    """Past messages stay; messages that come in from now on belong to nobody."""
    if not await store.delete(tx.connection, organization, connection_id):
        raise NotFound("connection")
