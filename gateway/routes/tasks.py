"""/api/tasks."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.common.paging import Page
from handlers.task import service
from handlers.task.models import NewTask, Task, TaskQuery

tasks = Routes("/api/tasks")


@tasks.post(status=201, location="/api/tasks/{id}")
async def create_task(call: Call, body: NewTask) -> Task:
    """Create a task by hand."""
    return await service.create(call.tx, call.organization, body)


@tasks.get()
async def list_tasks(call: Call, query: TaskQuery) -> Page[Task]:
    """Tasks, newest first."""
    return await service.page(call.tx, call.organization, query)


@tasks.get("/{task_id}")
async def get_task(call: Call, task_id: UUID) -> Task:
    """One task."""
    return await service.get(call.tx, call.organization, task_id)


@tasks.post("/{task_id}/complete", also=("/crm/tasks/{task_id}/complete",))
async def complete_task(call: Call, task_id: UUID) -> Task:
    """Complete a task; again is no error and changes nothing."""
    return await service.complete(call.tx, call.organization, task_id, call.caller.user)
