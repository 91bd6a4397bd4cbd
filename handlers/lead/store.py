"""Leads in PostgreSQL."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.paging import PageQuery, newest_first

_COLUMNS = (
    "id, organization AS organization_id, name, email, phone, company, source, status, funnel_id, step_id, "
    "assigned_to, score, enrichment, created_at, updated_at"
)
_SELECT = f"SELECT {_COLUMNS} FROM leads"  # noqa: S608 - constants
_FIND = f"{_SELECT} WHERE organization = $1 AND id = $2"

_SCHEDULED = """
SELECT event_id, type FROM eventbus_outbox
WHERE organization = $1 AND subject = $2 AND due_at > now() ORDER BY position
"""


async def insert(connection: Connection, organization: str, lead_id: str, values: Mapping[str, object]) -> Row | None:
    """`values`: by column name."""
    columns = ", ".join(values)
    places = ", ".join(f"${place}" for place in range(3, len(values) + 3))
    return await connection.fetchrow(
        f"INSERT INTO leads (organization, id, {columns}) VALUES ($1, $2, {places}) RETURNING {_COLUMNS}",  # noqa: S608
        organization,
        lead_id,
        *values.values(),
    )


async def find(connection: Connection, organization: str, lead_id: UUID) -> Row | None:
    return await connection.fetchrow(_FIND, organization, lead_id)


async def lock(connection: Connection, organization: str, lead_id: UUID) -> Row | None:
    """As `find`; until the transaction ends nobody else changes or deletes the lead."""
    return await connection.fetchrow(f"{_FIND} FOR UPDATE", organization, lead_id)


async def update(connection: Connection, organization: str, lead_id: UUID, changes: Mapping[str, object]) -> Row | None:
    """`changes`: by column name."""
    assignments = ", ".join(f"{column} = ${place}" for place, column in enumerate(changes, start=3))
    return await connection.fetchrow(
        f"UPDATE leads SET {assignments}, updated_at = now() "  # noqa: S608 - column names are ours
        f"WHERE organization = $1 AND id = $2 RETURNING {_COLUMNS}",
        organization,
        lead_id,
        *changes.values(),
    )


async def delete(connection: Connection, organization: str, lead_id: UUID) -> bool:
    """Delete the lead with its tasks. False if there is no such lead."""
    deleted = await connection.fetchval(
        "DELETE FROM leads WHERE organization = $1 AND id = $2 RETURNING true", organization, lead_id
    )
    return deleted is not None


async def page(
    connection: Connection, organization: str, filters: Mapping[str, object], query: PageQuery
) -> Sequence[Row]:
    return await newest_first(connection, _SELECT, organization, query, filters=filters)


async def scheduled(connection: Connection, organization: str, lead_id: str) -> Sequence[tuple[str, str]]:
    """Id and type of the scheduled events about a lead and its tasks, as far as the outbox still has them. A row does
    not tell whether its event is in Redis by now: the relay publishes first, and marks the row afterwards."""
    rows = await connection.fetch(_SCHEDULED, organization, lead_id)
    return [(str(row["event_id"]), row["type"]) for row in rows]
