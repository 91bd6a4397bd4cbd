"""Notifications on the wire: in lists, and in the frames that are pushed."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator

from handlers.common.fields import Answer
from handlers.common.paging import PageQuery
from handlers.notification.events import NotificationType

# `?unread` alone means yes.
Flag = Annotated[bool, BeforeValidator(lambda value: True if value == "" else value)]


class NotificationQuery(PageQuery):
    unread: Flag = False


class Notification(Answer):
    id: UUID
    user_id: str
    title: str
    message: str
    action_url: str | None
    notification_type: NotificationType
    read_at: datetime | None
    created_at: datetime
