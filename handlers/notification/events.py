"""Orders to tell a user something."""

from enum import StrEnum

from eventbus import Event


class NotificationType(StrEnum):
    INFO = "INFO"
    SUCCESS = "SUCCESS"
    WARNING = "WARNING"
    ERROR = "ERROR"
    TASK_EXPIRED = "TASK_EXPIRED"


class CreateNotification(Event, type="notification.create"):
    user_id: str
    organization_id: str
    title: str
    message: str
    action_url: str | None = None
    notification_type: NotificationType


class OutsideNotification(Event):
    user_id: str
    organization_id: str
    title: str | None = None
    message: str
    to: str | None = None


class SendPush(OutsideNotification, type="notification.send_push"):
    pass


class SendSms(OutsideNotification, type="notification.send_sms"):
    pass
