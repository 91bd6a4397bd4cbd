"""/api/connections: which account at a messenger speaks with which agent. For admins."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.channel import service
from handlers.channel.models import ChannelConnection, NewConnection
from handlers.common.paging import Page, PageQuery

ADMINS = frozenset({"admin"})

connections = Routes("/api/connections")


@connections.post(status=201, location="/api/connections/{id}", roles=ADMINS)
async def create_connection(call: Call, body: NewConnection) -> ChannelConnection:
    """Connect an account with an agent of the caller's; the history of a WhatsApp account is then imported."""
    return await service.create(call.tx, call.organization, call.caller.user, body)


@connections.get(roles=ADMINS)
async def list_connections(call: Call, query: PageQuery) -> Page[ChannelConnection]:
    """Connections, newest first."""
    return await service.page(call.tx, call.organization, query)


@connections.get("/{connection_id}", roles=ADMINS)
async def get_connection(call: Call, connection_id: UUID) -> ChannelConnection:
    """One connection."""
    return await service.get(call.tx, call.organization, connection_id)


@connections.delete("/{connection_id}", roles=ADMINS)
async def delete_connection(call: Call, connection_id: UUID) -> None:
    """Cut a connection; what was said stays."""
    await service.delete(call.tx, call.organization, connection_id)
