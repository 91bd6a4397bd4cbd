"""What happens to tasks."""

from eventbus import Event


class TaskEvent(Event):
    task_id: str
    lead_id: str | None = None
    organization_id: str
    title: str
    assigned_to: str | None = None


class TaskCreated(TaskEvent, type="task.created"):
    pass


class TaskCompleted(TaskEvent, type="task.completed"):
    pass


class TaskExpired(TaskEvent, type="task.expired"):
    """Published when a task with a due time is created, to arrive at that time: who handles it looks whether the task
    is still open."""
