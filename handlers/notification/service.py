"""What the gateway may do with notifications, and how one comes to be."""

from uuid import UUID

from eventbus import Transaction
from eventbus.event import uuid7
from handlers.common.errors import NotFound
from handlers.common.paging import Page, cut
from handlers.notification import store
from handlers.notification.events import CreateNotification
from handlers.notification.models import Notification, NotificationQuery


async def create(tx: Transaction, order: CreateNotification) -> Notification:
    row = await store.insert(
        tx.connection,
        order.organization_id,
        uuid7(),
        user_id=order.user_id,
        title=order.title,
        message=order.message,
        action_url=order.action_url,
        notification_type=order.notification_type,
    )
    assert row is not None, "INSERT … RETURNING"
    return Notification.model_validate(dict(row))


async def page(tx: Transaction, organization: str, user_id: str, query: NotificationQuery) -> Page[Notification]:
    found = await store.page(tx.connection, organization, user_id, query, unread=query.unread)
    rows, cursor = cut(found, query.limit)
    return Page[Notification](items=[Notification.model_validate(dict(row)) for row in rows], next_cursor=cursor)


async def mark_read(tx: Transaction, organization: str, user_id: str, notification_id: UUID) -> Notification:
    """Raises NotFound for another user's notification as well."""
    row = await store.mark_read(tx.connection, organization, user_id, notification_id)
    if row is None:
        raise NotFound("notification")
    return Notification.model_validate(dict(row))
