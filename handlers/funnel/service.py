"""What the gateway may do with funnels, and where a lead may stand in one."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID

from eventbus import Connection, Transaction
from eventbus.contract.transaction import Row
from eventbus.event import uuid7
from handlers.common.errors import Invalid, NotFound
from handlers.common.paging import Page, PageQuery, cut
from handlers.funnel import store
from handlers.funnel.models import Funnel, NewFunnel, Step, TaskTemplate
from handlers.funnel.store import StepRow, TemplateRow

T = TypeVar("T")


class StepId(NamedTuple):
    """A step of a funnel."""

    funnel_id: UUID
    step_id: UUID


async def create(tx: Transaction, organization: str, new: NewFunnel) -> Funnel:
    funnel_id = uuid7()
    steps = [StepRow(position, uuid7(), step.name) for position, step in enumerate(new.steps)]
    templates = [
        TemplateRow(row.id, position, uuid7(), one.title, one.description, one.due_in_hours, one.after)
        for row, step in zip(steps, new.steps, strict=True)
        for position, one in enumerate(step.task_templates)
    ]
    await store.insert(tx.connection, organization, funnel_id, new.name, steps=steps, templates=templates)
    return await get(tx, organization, UUID(funnel_id))


async def get(tx: Transaction, organization: str, funnel_id: UUID) -> Funnel:
    row = await store.find(tx.connection, organization, funnel_id)
    if row is None:
        raise NotFound("funnel")
    [funnel] = await _with_steps(tx.connection, organization, [row])
    return funnel


async def page(tx: Transaction, organization: str, query: PageQuery) -> Page[Funnel]:
    rows, cursor = cut(await store.page(tx.connection, organization, query), query.limit)
    return Page[Funnel](items=await _with_steps(tx.connection, organization, rows), next_cursor=cursor)


async def locate(
    connection: Connection, organization: str, funnel_id: UUID | None, step_id: UUID | None
) -> StepId | None:
    """Where a lead belongs: in the step, else in the first step of the funnel, else nowhere.

    Raises Invalid if there is no such step or funnel, or the step is another funnel's."""
    if step_id is not None:
        row = await store.find_step(connection, organization, step_id)
        if row is None:
            raise Invalid("stepId", "there is no such step")
        if funnel_id not in (None, row["funnel_id"]):
            raise Invalid("stepId", "this step belongs to another funnel")
    elif funnel_id is not None:
        row = await store.first_step(connection, organization, funnel_id)
        if row is None:
            raise Invalid("funnelId", "there is no such funnel")
    else:
        return None
    return StepId(row["funnel_id"], row["id"])


async def _with_steps(connection: Connection, organization: str, funnels: Sequence[Row]) -> list[Funnel]:
    steps = await store.steps(connection, organization, [funnel["id"] for funnel in funnels])
    templates = await store.templates(connection, organization, [step["id"] for step in steps])
    tasks = _grouped(templates, "step_id", lambda one: TaskTemplate(**dict(one)))
    parts = _grouped(
        steps, "funnel_id", lambda step: Step(id=step["id"], name=step["name"], task_templates=tasks[step["id"]])
    )
    return [Funnel(**dict(funnel), steps=parts[funnel["id"]]) for funnel in funnels]


def _grouped(rows: Sequence[Row], by: str, make: Callable[[Row], T]) -> dict[UUID, list[T]]:
    """In one round: a page may have tens of thousands."""
    groups: dict[UUID, list[T]] = defaultdict(list)
    for row in rows:
        groups[row[by]].append(make(row))
    return groups
