"""/api/notifications: each user sees his own."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.common.paging import Page
from handlers.notification import service
from handlers.notification.models import Notification, NotificationQuery

notifications = Routes("/api/notifications")


@notifications.get()
async def list_notifications(call: Call, query: NotificationQuery) -> Page[Notification]:
    """The caller's notifications, newest first."""
    return await service.page(call.tx, call.organization, call.caller.user, query)


@notifications.post("/{notification_id}/read")
async def read_notification(call: Call, notification_id: UUID) -> Notification:
    """Mark a notification as read; again is no error and keeps the first time."""
    return await service.mark_read(call.tx, call.organization, call.caller.user, notification_id)
