"""Push subscriptions in PostgreSQL. Every query takes the organization and the user: each sees only his own."""

from collections.abc import Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.common.paging import PageQuery, newest_first
from handlers.subscription.models import NewSubscription

_COLUMNS = "id, endpoint, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM push_subscriptions"  # noqa: S608 - constants
# A browser has one endpoint. The user who registers it is the one who sits in front of the browser now.
_PUT = f"""
INSERT INTO push_subscriptions (organization, user_id, id, endpoint, p256dh, auth) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (organization, md5(endpoint)) DO UPDATE SET
    user_id = excluded.user_id, p256dh = excluded.p256dh, auth = excluded.auth
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_BOUND = """
DELETE FROM push_subscriptions WHERE organization = $1 AND user_id = $2 AND id IN (
    SELECT id FROM push_subscriptions WHERE organization = $1 AND user_id = $2 ORDER BY id DESC OFFSET $3
)
"""
_OWN = "WHERE organization = $1 AND user_id = $2 AND id = $3"
_DELETE = f"DELETE FROM push_subscriptions {_OWN} RETURNING true"  # noqa: S608 - constants
_OF_USER = """
SELECT id, endpoint, p256dh, auth FROM push_subscriptions WHERE organization = $1 AND user_id = $2 ORDER BY id
"""


async def put(
    connection: Connection, organization: str, user: str, subscription_id: str, new: NewSubscription
) -> Row | None:
    """Insert the subscription; if there is one for this endpoint, that one becomes the user's."""
    keys = new.keys
    return await connection.fetchrow(_PUT, organization, user, subscription_id, new.endpoint, keys.p256dh, keys.auth)


async def bound(connection: Connection, organization: str, user: str, count: int) -> None:
    """Keep the user's newest `count` subscriptions."""
    await connection.execute(_BOUND, organization, user, count)


async def page(connection: Connection, organization: str, user: str, query: PageQuery) -> Sequence[Row]:
    return await newest_first(connection, _SELECT, organization, query, filters={"user_id": user})


async def find(connection: Connection, organization: str, user: str, subscription_id: UUID) -> Row | None:
    return await connection.fetchrow(f"{_SELECT} {_OWN}", organization, user, subscription_id)


async def delete(connection: Connection, organization: str, user: str, subscription_id: UUID) -> bool:
    """False if this user has no such subscription."""
    return await connection.fetchval(_DELETE, organization, user, subscription_id) is not None


async def of_user(connection: Connection, organization: str, user: str) -> Sequence[Row]:
    """The user's subscriptions, with their keys."""
    return await connection.fetch(_OF_USER, organization, user)
