"""What must be transactional, on PostgreSQL. The only package of the framework that imports asyncpg."""

from eventbus.postgres.database import Database
from eventbus.postgres.migrations import Migration, apply, installed, load, pending, require
from eventbus.postgres.tracing import trace, waiting

__all__ = ["Database", "Migration", "apply", "installed", "load", "pending", "require", "trace", "waiting"]
