"""What the gateway and the automation may do with tasks."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventbus import Transaction
from eventbus.checks.numbers import longest_delay
from eventbus.contract.transaction import Row
from eventbus.event import uuid7
from handlers.common.errors import Invalid, NotFound
from handlers.common.paging import Page, PageQuery, cut
from handlers.task import store
from handlers.task.events import TaskCompleted, TaskCreated, TaskExpired
from handlers.task.models import NewTask, Task, TaskQuery, TaskStatus
from handlers.task.store import TaskRow


async def create(tx: Transaction, organization: str, new: NewTask) -> Task:
    """Raises Invalid if there is no such lead."""
    if new.lead_id is not None and not await store.lock_lead(tx.connection, organization, new.lead_id):
        raise Invalid("leadId", "there is no such lead")
    row = TaskRow(uuid7(), new.lead_id, None, new.title, None, new.assigned_to, new.due_at)
    [task] = await _insert(tx, organization, [row])
    return task


async def create_from_templates(tx: Transaction, organization: str, templates: Sequence[Row]) -> list[Task]:
    """`templates`: rows of store.due_on_entering or due_on_completing."""
    rows = [
        TaskRow(
            uuid7(),
            template["lead_id"],
            template["template_id"],
            template["title"],
            template["description"],
            template["assigned_to"],
            due_in_hours=template["due_in_hours"],
        )
        for template in templates
    ]
    return await _insert(tx, organization, rows) if rows else []


async def _insert(tx: Transaction, organization: str, rows: Sequence[TaskRow]) -> list[Task]:
    """Insert tasks. Each publishes TaskCreated and, if it has a due time, a TaskExpired that is delayed until then, but
    at most by the longest delay."""
    tasks = []
    for row in await store.insert(tx.connection, organization, rows):
        task = Task.model_validate(dict(row))
        await tx.publish(TaskCreated(**_told(task)), key=_subject(task))
        if row["due_in"] is not None:
            await tx.publish(
                TaskExpired(**_told(task)), key=_subject(task), delay=min(max(0.0, row["due_in"]), longest_delay())
            )
        tasks.append(task)
    return tasks


async def get(tx: Transaction, organization: str, task_id: UUID) -> Task:
    row = await store.find(tx.connection, organization, task_id)
    if row is None:
        raise NotFound("task")
    return Task.model_validate(dict(row))


async def page(tx: Transaction, organization: str, query: TaskQuery) -> Page[Task]:
    filters = {"lead_id": query.lead_id, "status": query.status, "assigned_to": query.assigned_to}
    return await _page(tx, organization, filters, query)


async def page_of_lead(tx: Transaction, organization: str, lead_id: UUID, query: PageQuery) -> Page[Task]:
    """Raises NotFound if there is no such lead."""
    if not await store.lock_lead(tx.connection, organization, lead_id):
        raise NotFound("lead")
    return await _page(tx, organization, {"lead_id": lead_id}, query)


async def _page(tx: Transaction, organization: str, filters: dict[str, Any], query: PageQuery) -> Page[Task]:
    rows, cursor = cut(await store.page(tx.connection, organization, filters, query), query.limit)
    return Page[Task](items=[Task.model_validate(dict(row)) for row in rows], next_cursor=cursor)


async def complete(tx: Transaction, organization: str, task_id: UUID, user_id: str) -> Task:
    """A task that is completed already stays as it is, and publishes nothing again."""
    row = await store.lock(tx.connection, organization, task_id)
    if row is None:
        raise NotFound("task")
    if row["status"] == TaskStatus.COMPLETED:
        return Task.model_validate(dict(row))
    completed = await store.complete(tx.connection, organization, task_id, user_id)
    assert completed is not None, "the row is locked"
    task = Task.model_validate(dict(completed))
    await tx.publish(TaskCompleted(**_told(task)), key=_subject(task))
    return task


def _told(task: Task) -> dict[str, Any]:
    """The fields that every task event has."""
    return {
        "task_id": str(task.id),
        "lead_id": None if task.lead_id is None else str(task.lead_id),
        "organization_id": task.organization_id,
        "title": task.title,
        "assigned_to": task.assigned_to,
    }


def _subject(task: Task) -> str:
    """What the task's events are about: its lead, else itself."""
    return str(task.lead_id or task.id)
