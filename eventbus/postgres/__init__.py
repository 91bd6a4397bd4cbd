"""What must be transactional, on PostgreSQL. The only package of the framework that imports asyncpg."""

from eventbus.postgres.database import Database
from eventbus.postgres.event_trace import effects, gather, stored_envelope, trace
from eventbus.postgres.history import executions, find
from eventbus.postgres.migrations import Migration, apply, installed, load, pending, require
from eventbus.postgres.outbox_status import aside, discard, retry, standing
from eventbus.postgres.rights import Lacking, lacking

__all__ = [
    "Database",
    "Lacking",
    "Migration",
    "apply",
    "aside",
    "discard",
    "effects",
    "executions",
    "find",
    "gather",
    "installed",
    "lacking",
    "load",
    "pending",
    "require",
    "retry",
    "standing",
    "stored_envelope",
    "trace",
]
