"""Connections in PostgreSQL, and what has come in through them. Every query takes the organization, except the one that
looks the organization up: a webhook names an account and nothing else."""

from collections.abc import Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.channel.models import NewConnection
from handlers.common.paging import PageQuery, newest_first

_COLUMNS = "id, channel, account, agent_id, user_id, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM channel_connections"  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO channel_connections (organization, id, user_id, channel, account, agent_id) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (channel, account) DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_DELETE = "DELETE FROM channel_connections WHERE organization = $1 AND id = $2 RETURNING true"
_OF_ACCOUNT = f"SELECT organization, {_COLUMNS} FROM channel_connections WHERE channel = $1 AND account = $2"  # noqa: S608
_ACCOUNTS = "SELECT account FROM channel_connections WHERE organization = $1 AND channel = $2"
_NOTE = """
INSERT INTO inbound_messages (organization, channel, account, provider_id, message_id) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING true
"""


async def insert(
    connection: Connection, organization: str, connection_id: str, user: str, new: NewConnection
) -> Row | None:
    """None if the account is connected already, in any organization."""
    return await connection.fetchrow(_INSERT, organization, connection_id, user, new.channel, new.account, new.agent_id)


async def page(connection: Connection, organization: str, query: PageQuery) -> Sequence[Row]:
    return await newest_first(connection, _SELECT, organization, query)


async def find(connection: Connection, organization: str, connection_id: UUID) -> Row | None:
    return await connection.fetchrow(f"{_SELECT} WHERE organization = $1 AND id = $2", organization, connection_id)


async def delete(connection: Connection, organization: str, connection_id: UUID) -> bool:
    """False if the organization has no such connection."""
    return await connection.fetchval(_DELETE, organization, connection_id) is not None


async def of_account(connection: Connection, channel: str, account: str) -> Row | None:
    """The account's connection, with the organization that it belongs to."""
    return await connection.fetchrow(_OF_ACCOUNT, channel, account)


async def accounts(connection: Connection, organization: str, channel: str) -> list[str]:
    return [row["account"] for row in await connection.fetch(_ACCOUNTS, organization, channel)]


async def note_inbound(
    connection: Connection, organization: str, *, channel: str, account: str, provider_id: str, message_id: UUID
) -> bool:
    """False if the message has been noted before. Waits for a transaction that is just noting it."""
    return await connection.fetchval(_NOTE, organization, channel, account, provider_id, message_id) is not None
