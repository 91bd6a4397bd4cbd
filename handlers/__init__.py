"""The application on the bus: leads, funnels, tasks, notifications, mail. Each flow is a package, which may have

events.py    the types that it publishes
models.py    its requests and answers on the wire of the gateway
store.py     its SQL; every query takes the organization
service.py   what the gateway may call, inside the caller's transaction
handlers.py  its consumer group
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

import handlers.retention  # noqa: F401 - registers what recurs
from eventbus import Group
from eventbus.roles.history_group import recorder
from handlers.delivery.handlers import delivery
from handlers.email.handlers import email
from handlers.lead.handlers import lead
from handlers.lead.reactions import lead_automation
from handlers.message.handlers import message
from handlers.notification.handlers import notification
from handlers.task.handlers import task_automation
from handlers.whatsapp.handlers import whatsapp_sync

MIGRATIONS: Traversable = files("handlers") / "migrations"
history = recorder()
GROUPS: list[Group] = [
    *(task_automation, lead_automation, lead, email, notification),
    *(message, delivery, whatsapp_sync, history),
]

__all__ = ["GROUPS", "MIGRATIONS"]
