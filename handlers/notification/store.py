"""Notifications in PostgreSQL. Every query takes the organization and the user: each sees only his own."""

from collections.abc import Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.paging import PageQuery, newest_first

_COLUMNS = "id, user_id, title, message, action_url, notification_type, read_at, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM notifications"  # noqa: S608 - constants
_INSERT = f"""
INSERT INTO notifications (organization, id, user_id, title, message, action_url, notification_type)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_READ = f"""
UPDATE notifications SET read_at = coalesce(read_at, now())
WHERE organization = $1 AND user_id = $2 AND id = $3 RETURNING {_COLUMNS}
"""  # noqa: S608 - constants


async def insert(
    connection: Connection,
    organization: str,
    notification_id: str,
    *,
    user_id: str,
    title: str,
    message: str,
    action_url: str | None,
    notification_type: str,
) -> Row | None:
    return await connection.fetchrow(
        _INSERT, organization, notification_id, user_id, title, message, action_url, notification_type
    )


async def page(
    connection: Connection, organization: str, user_id: str, query: PageQuery, *, unread: bool
) -> Sequence[Row]:
    only = "read_at IS NULL" if unread else ""
    return await newest_first(connection, _SELECT, organization, query, filters={"user_id": user_id}, only=only)


async def mark_read(connection: Connection, organization: str, user_id: str, notification_id: UUID) -> Row | None:
    """None if this user has no such notification. One that is read already keeps its time."""
    return await connection.fetchrow(_READ, organization, user_id, notification_id)
