"""Funnels in PostgreSQL."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.paging import PageQuery, newest_first

_INSERT_FUNNEL = "INSERT INTO funnels (organization, id, name) VALUES ($1, $2, $3) RETURNING created_at"
_INSERT_STEPS = """
INSERT INTO steps (organization, funnel_id, position, id, name)
SELECT $1, $2, step.* FROM unnest($3::int[], $4::uuid[], $5::text[]) AS step
"""
# One statement, so that a template may name one that comes later in the list.
_INSERT_TEMPLATES = """
INSERT INTO task_templates (organization, step_id, position, id, title, description, due_in_hours, after)
SELECT $1, template.*
FROM unnest($2::uuid[], $3::int[], $4::uuid[], $5::text[], $6::text[], $7::float8[], $8::text[]) AS template
"""
_SELECT_FUNNELS = "SELECT id, organization AS organization_id, name, created_at FROM funnels"
_SELECT_STEPS = """
SELECT id, funnel_id, name FROM steps
WHERE organization = $1 AND funnel_id = ANY($2::uuid[]) ORDER BY funnel_id, position
"""
_SELECT_TEMPLATES = """
SELECT id, step_id, title, description, due_in_hours, after FROM task_templates
WHERE organization = $1 AND step_id = ANY($2::uuid[]) ORDER BY step_id, position
"""


class StepRow(NamedTuple):
    position: int
    id: str
    name: str


class TemplateRow(NamedTuple):
    step_id: str
    position: int
    id: str
    title: str
    description: str | None
    due_in_hours: float | None
    after: str | None


async def insert(
    connection: Connection,
    organization: str,
    funnel_id: str,
    name: str,
    *,
    steps: Sequence[StepRow],
    templates: Sequence[TemplateRow],
) -> None:
    await connection.execute(_INSERT_FUNNEL, organization, funnel_id, name)
    await connection.execute(_INSERT_STEPS, organization, funnel_id, *_columns(steps))
    if templates:
        await connection.execute(_INSERT_TEMPLATES, organization, *_columns(templates))


async def find(connection: Connection, organization: str, funnel_id: UUID | str) -> Row | None:
    return await connection.fetchrow(f"{_SELECT_FUNNELS} WHERE organization = $1 AND id = $2", organization, funnel_id)


async def page(connection: Connection, organization: str, query: PageQuery) -> Sequence[Row]:
    return await newest_first(connection, _SELECT_FUNNELS, organization, query)


async def steps(connection: Connection, organization: str, funnel_ids: Sequence[UUID]) -> Sequence[Row]:
    return await connection.fetch(_SELECT_STEPS, organization, funnel_ids)


async def templates(connection: Connection, organization: str, step_ids: Sequence[UUID]) -> Sequence[Row]:
    return await connection.fetch(_SELECT_TEMPLATES, organization, step_ids)


async def find_step(connection: Connection, organization: str, step_id: UUID) -> Row | None:
    """id and funnel_id."""
    return await connection.fetchrow(
        "SELECT id, funnel_id FROM steps WHERE organization = $1 AND id = $2", organization, step_id
    )


async def first_step(connection: Connection, organization: str, funnel_id: UUID) -> Row | None:
    """id and funnel_id."""
    return await connection.fetchrow(
        "SELECT id, funnel_id FROM steps WHERE organization = $1 AND funnel_id = $2 ORDER BY position LIMIT 1",
        organization,
        funnel_id,
    )


def _columns(rows: Sequence[StepRow] | Sequence[TemplateRow]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
