"""Group `notification`: rows for users, which are pushed to their open sockets; and notices of overdue tasks.

The row is the guarantee. The push after its commit only reaches sockets that are open now: if Redis is away or this
process dies in between, the user finds the notification in his list, and the push is not tried again.
"""

from eventbus import Backoff, Context, Group, RetryLater, RetryPolicy
from handlers.common.fields import known_id
from handlers.common.pushing import push
from handlers.delivery.record import give_up
from handlers.notification import push as web_push
from handlers.notification import service, sms
from handlers.notification.events import CreateNotification, NotificationType, SendPush, SendSms
from handlers.notification.models import Notification
from handlers.task import store as tasks
from handlers.task.events import TaskExpired

notification = Group("notification", retry=RetryPolicy(attempts=2, backoff=Backoff.fixed(5.0)), concurrency=10)
notification.on_dead(give_up)  # for pushes and SMS


@notification.on(CreateNotification)
async def create_notification(event: CreateNotification, ctx: Context) -> None:
    created: Notification | None = None
    async with ctx.transaction() as tx:
        created = await service.create(tx, event)
    if created is not None:  # else it was created, and pushed, by an earlier delivery
        frame = created.model_dump(mode="json", by_alias=True)
        await push(ctx, event.organization_id, event.user_id, "notification", frame)


@notification.on(TaskExpired)
async def tell_of_expired_task(event: TaskExpired, ctx: Context) -> None:
    """The event was published when the task was created. A task that was completed or deleted since has not expired."""
    task_id = known_id(event.task_id)
    if task_id is None:
        return
    async with ctx.transaction() as tx:
        task = await tasks.lock_open(tx.connection, event.organization_id, task_id)
        if task is None or task["user_id"] is None:
            return
        if task["due_in"] > 0:  # Redis chose the moment, and its clock may be ahead
            raise RetryLater(task["due_in"], "not due yet by the clock of PostgreSQL")
        notice = CreateNotification(
            user_id=task["user_id"],
            organization_id=event.organization_id,
            title="Task overdue",
            message=f"{task['title']} is still open",
            action_url=f"/tasks/{task_id}",
            notification_type=NotificationType.TASK_EXPIRED,
        )
        await tx.publish(notice, key=str(task["lead_id"] or task_id))


@notification.on(SendPush)
async def send_push(event: SendPush, ctx: Context) -> None:
    """To the browsers of the user."""
    await web_push.send(event, ctx)


@notification.on(SendSms)
async def send_sms(event: SendSms, ctx: Context) -> None:
    """To the number that the event names."""
    await sms.send(event, ctx)
