"""Tasks in PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.paging import PageQuery, newest_first

_COLUMNS = (
    "id, organization AS organization_id, lead_id, title, description, status, assigned_to, due_at, "
    "created_at, completed_at, completed_by"
)
_SELECT = f"SELECT {_COLUMNS} FROM tasks"  # noqa: S608 - constants
_FIND = f"{_SELECT} WHERE organization = $1 AND id = $2"
_COMPLETE = f"""
UPDATE tasks SET status = 'COMPLETED', completed_at = now(), completed_by = $3
WHERE organization = $1 AND id = $2 RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
# The due time is reckoned by the database's clock, which is also the one that the outbox goes by.
_INSERT = f"""
INSERT INTO tasks (organization, id, lead_id, template_id, title, description, assigned_to, due_at)
SELECT $1, task.id, task.lead_id, task.template_id, task.title, task.description, task.assigned_to,
       coalesce(task.due_at, now() + make_interval(secs => task.due_in_hours * 3600))
FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::float8[])
     AS task (id, lead_id, template_id, title, description, assigned_to, due_at, due_in_hours)
RETURNING {_COLUMNS}, extract(epoch FROM due_at - clock_timestamp())::float8 AS due_in
"""  # noqa: S608 - constants
# FOR KEY SHARE: whoever deletes the lead waits until its new tasks are there to be deleted with it.
_ON_ENTERING = """
SELECT lead.id AS lead_id, lead.assigned_to, template.id AS template_id, template.title, template.description,
       template.due_in_hours
FROM leads AS lead
JOIN task_templates AS template ON template.organization = lead.organization AND template.step_id = $3
WHERE lead.organization = $1 AND lead.id = $2 AND template.after IS NULL
ORDER BY template.position
FOR KEY SHARE OF lead
"""
_ON_COMPLETING = """
SELECT lead.id AS lead_id, lead.assigned_to, template.id AS template_id, template.title, template.description,
       template.due_in_hours
FROM tasks AS done
JOIN leads AS lead ON lead.organization = done.organization AND lead.id = done.lead_id
JOIN task_templates AS origin ON origin.organization = done.organization AND origin.id = done.template_id
JOIN task_templates AS template
     ON template.organization = origin.organization AND template.step_id = origin.step_id
    AND template.after = origin.title
WHERE done.organization = $1 AND done.id = $2
ORDER BY template.position
FOR KEY SHARE OF lead
"""
_LOCK_OPEN = """
SELECT task.lead_id, task.title, coalesce(task.assigned_to, lead.assigned_to) AS user_id,
       extract(epoch FROM task.due_at - clock_timestamp())::float8 AS due_in
FROM tasks AS task
LEFT JOIN leads AS lead ON lead.organization = task.organization AND lead.id = task.lead_id
WHERE task.organization = $1 AND task.id = $2 AND task.status = 'OPEN' AND task.due_at IS NOT NULL
FOR UPDATE OF task
"""


class TaskRow(NamedTuple):
    """The task is due at `due_at`, else `due_in_hours` from now; with neither it is never due."""

    id: str
    lead_id: UUID | None
    template_id: UUID | None
    title: str
    description: str | None
    assigned_to: str | None
    due_at: datetime | None = None
    due_in_hours: float | None = None


async def insert(connection: Connection, organization: str, tasks: Sequence[TaskRow]) -> Sequence[Row]:
    """The rows, in order, with `due_in`: seconds until the task is due, below 0 if it was, None if it never is."""
    return await connection.fetch(_INSERT, organization, *(list(column) for column in zip(*tasks, strict=True)))


async def find(connection: Connection, organization: str, task_id: UUID) -> Row | None:
    return await connection.fetchrow(_FIND, organization, task_id)


async def lock(connection: Connection, organization: str, task_id: UUID) -> Row | None:
    """As `find`; until the transaction ends nobody else changes the task."""
    return await connection.fetchrow(f"{_FIND} FOR UPDATE", organization, task_id)


async def lock_open(connection: Connection, organization: str, task_id: UUID) -> Row | None:
    """lead_id, title, due_in (seconds, below 0 when overdue) and user_id (the task's, else its lead's, else None) of a
    task that is open and has a due time; else None."""
    return await connection.fetchrow(_LOCK_OPEN, organization, task_id)


async def complete(connection: Connection, organization: str, task_id: UUID, user_id: str) -> Row | None:
    return await connection.fetchrow(_COMPLETE, organization, task_id, user_id)


async def page(
    connection: Connection, organization: str, filters: Mapping[str, object], query: PageQuery
) -> Sequence[Row]:
    return await newest_first(connection, _SELECT, organization, query, filters=filters)


async def lock_lead(connection: Connection, organization: str, lead_id: UUID) -> bool:
    """Whether there is such a lead; it stays there until the transaction ends."""
    found = await connection.fetchval(
        "SELECT true FROM leads WHERE organization = $1 AND id = $2 FOR KEY SHARE", organization, lead_id
    )
    return found is not None


async def due_on_entering(connection: Connection, organization: str, lead_id: UUID, step_id: UUID) -> Sequence[Row]:
    """The templates that become tasks now, with lead_id and assigned_to; none if the lead or the step is gone."""
    return await connection.fetch(_ON_ENTERING, organization, lead_id, step_id)


async def due_on_completing(connection: Connection, organization: str, task_id: UUID) -> Sequence[Row]:
    """As `due_on_entering`, for those that come after this task."""
    return await connection.fetch(_ON_COMPLETING, organization, task_id)
