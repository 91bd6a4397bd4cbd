"""The application on the bus: leads, funnels, tasks, notifications, mail. One package a flow, and in each

events.py    the types that it publishes
models.py    what it says and understands on the wire of the gateway
store.py     SQL; every query takes the organization
service.py   what the gateway may ask of it, inside a transaction of the caller's
handlers.py  its consumer group
"""

from importlib.resources import files
from importlib.resources.abc import Traversable

import handlers.retention  # noqa: F401 - what recurs is registered
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
