"""Tasks on the wire."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from handlers.common.fields import Answer, Line, Moment, Request, UserId
from handlers.common.paging import PageQuery


class TaskStatus(StrEnum):
    """A task that is overdue is still open: it has to be done all the same."""

    OPEN = "OPEN"
    COMPLETED = "COMPLETED"


class NewTask(Request):
    """A `dueAt` that has passed expires the task at once."""

    title: Line
    lead_id: UUID | None = None
    due_at: Moment | None = None
    assigned_to: UserId | None = None


class TaskQuery(PageQuery):
    lead_id: UUID | None = None
    status: TaskStatus | None = None
    assigned_to: UserId | None = None


class Task(Answer):
    id: UUID
    organization_id: str
    lead_id: UUID | None
    title: str
    description: str | None
    status: TaskStatus
    assigned_to: str | None
    due_at: datetime | None
    created_at: datetime
    completed_at: datetime | None
    completed_by: str | None
