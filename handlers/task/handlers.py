"""Group `task-automation`: the tasks that a step brings.

An event may be old when it is handled. If the lead, the step or the task is gone by then, nothing is left to do. If the
lead has moved on, the tasks of the step that it entered are created all the same: it did enter it.
"""

from eventbus import Backoff, Context, Group, RetryPolicy
from handlers.common.fields import known_id
from handlers.lead.events import LeadCreated, LeadMovedToStep
from handlers.task import service, store
from handlers.task.events import TaskCompleted

# One at a time: the tasks of two events about one lead must not be created in turns.
task_automation = Group(
    "task-automation", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)), concurrency=1
)


@task_automation.on(LeadCreated)
async def open_first_tasks(event: LeadCreated, ctx: Context) -> None:
    if event.step_id is not None:
        await _enter(ctx, event.organization_id, event.lead_id, event.step_id)


@task_automation.on(LeadMovedToStep)
async def open_tasks_of_step(event: LeadMovedToStep, ctx: Context) -> None:
    await _enter(ctx, event.organization_id, event.lead_id, event.new_step_id)


async def _enter(ctx: Context, organization: str, lead: str, step: str) -> None:
    lead_id, step_id = known_id(lead), known_id(step)
    if lead_id is None or step_id is None:
        return
    async with ctx.transaction() as tx:
        templates = await store.due_on_entering(tx.connection, organization, lead_id, step_id)
        await service.create_from_templates(tx, organization, templates)


@task_automation.on(TaskCompleted)
async def open_next_tasks(event: TaskCompleted, ctx: Context) -> None:
    task_id = known_id(event.task_id)
    if task_id is None:
        return
    async with ctx.transaction() as tx:
        templates = await store.due_on_completing(tx.connection, event.organization_id, task_id)
        await service.create_from_templates(tx, event.organization_id, templates)
