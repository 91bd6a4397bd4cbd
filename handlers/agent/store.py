"""Agents in PostgreSQL. Every query takes the organization and the user: each sees only his own."""

from collections.abc import Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.agent.models import NewAgent
from handlers.common.paging import PageQuery, newest_first

_COLUMNS = "id, organization AS organization_id, user_id, name, model, system_prompt, workflow, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM agents"  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO agents (organization, id, user_id, name, model, system_prompt, workflow)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_OWN = "WHERE organization = $1 AND user_id = $2 AND id = $3"


async def insert(connection: Connection, organization: str, user: str, agent_id: str, new: NewAgent) -> Row | None:
    return await connection.fetchrow(
        _INSERT, organization, agent_id, user, new.name, new.model, new.system_prompt, new.workflow
    )


async def find(connection: Connection, organization: str, user: str, agent_id: UUID) -> Row | None:
    return await connection.fetchrow(f"{_SELECT} {_OWN}", organization, user, agent_id)


async def page(connection: Connection, organization: str, user: str, query: PageQuery) -> Sequence[Row]:
    return await newest_first(connection, _SELECT, organization, query, filters={"user_id": user})


async def delete(connection: Connection, organization: str, user: str, agent_id: UUID) -> bool:
    """False if this user has no such agent."""
    deleted = await connection.fetchval(
        f"DELETE FROM agents {_OWN} RETURNING true",  # noqa: S608 - constants
        organization,
        user,
        agent_id,
    )
    return deleted is not None
