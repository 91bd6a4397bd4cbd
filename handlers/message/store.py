"""Conversations and messages in PostgreSQL. Every query takes the organization; what is a user's own, the user."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from eventbus.event import uuid7
from handlers.message.events import MessageEvent, MessageReceived, MessageResponded

_BEGIN = """
WITH begun AS (
    INSERT INTO conversations (organization, id, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING user_id
)
SELECT true AS new, user_id FROM begun
UNION ALL SELECT false, user_id FROM conversations WHERE organization = $1 AND id = $2
"""
_OWNER = "SELECT user_id FROM conversations WHERE organization = $1 AND id = $2"
_COLUMNS = "id, position, conversation_id, message_id, role, channel, agent_id, event_id, content, metadata, created_at"
_SELECT = f"SELECT {_COLUMNS} FROM messages"  # noqa: S608 - constants
_INSERT = """
INSERT INTO messages
    (organization, id, conversation_id, user_id, message_id, role, channel, agent_id, event_id, content, metadata)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_INSERT_QUESTION = f"""
{_INSERT} ON CONFLICT (organization, user_id, message_id) WHERE role = 'user' DO NOTHING RETURNING {_COLUMNS}
"""
# A statement does not see what it writes itself, hence the union: the rows that were there before it, and its own.
_INSERT_RESPONSE = f"""
WITH response AS ({_INSERT} RETURNING {_COLUMNS}),
before AS ({_SELECT} WHERE organization = $1 AND conversation_id = $3 ORDER BY position DESC LIMIT $12)
SELECT * FROM before UNION ALL SELECT * FROM response
"""  # noqa: S608 - constants
_FIND = f"{_SELECT} WHERE organization = $1 AND user_id = $2 AND message_id = $3 AND role = $4"
_NAME_EVENT = """
UPDATE messages SET event_id = $4 WHERE organization = $1 AND user_id = $2 AND message_id = $3 AND role = 'user'
"""
_PAGE = f"{_SELECT} WHERE organization = $1 AND conversation_id = $2 AND position > $3 ORDER BY position LIMIT $4"
_RECENT = f"{_SELECT} WHERE organization = $1 AND conversation_id = $2 ORDER BY position DESC LIMIT $3"


async def owner(connection: Connection, organization: str, conversation: UUID) -> str | None:
    """The user whose conversation it is; None if nothing of it is written down."""
    found: str | None = await connection.fetchval(_OWNER, organization, conversation)
    return found


class Begun(NamedTuple):
    """A conversation that is there now. `new`: nothing had been said in it. `own`: it is this user's."""

    new: bool
    own: bool


async def begin_conversation(connection: Connection, organization: str, user: str, conversation: UUID) -> Begun:
    """Write the conversation down if it is not there yet."""
    found = await connection.fetchrow(_BEGIN, organization, conversation, user)
    if found is not None:
        return Begun(new=found["new"], own=found["user_id"] == user)
    # Another transaction began it: the statement has waited for that commit, and does not see the row.
    return Begun(new=False, own=await owner(connection, organization, conversation) == user)


async def insert_question(
    connection: Connection, organization: str, event: MessageReceived, event_id: str | None
) -> Row | None:
    """None if the user has a question with this message id. Waits for a transaction that is just writing that one."""
    return await connection.fetchrow(
        _INSERT_QUESTION, organization, *_values(event, "user", event_id), event.message, event.metadata
    )


async def name_event(connection: Connection, organization: str, event: MessageReceived, event_id: str) -> None:
    await connection.execute(_NAME_EVENT, organization, event.user_id, event.message_id, event_id)


async def insert_response(
    connection: Connection,
    organization: str,
    response: MessageResponded,
    event_id: str,
    limit: int,
) -> Sequence[Row]:
    """The last messages of the conversation, oldest first: as `recent`, with the response at the end."""
    values = (*_values(response, "assistant", event_id), response.message, response.metadata)
    rows = await connection.fetch(_INSERT_RESPONSE, organization, *values, limit - 1)
    return sorted(rows, key=itemgetter("position"))


def _values(event: MessageEvent, role: str, event_id: str | None) -> tuple[object, ...]:
    """Columns from `id` to `event_id`."""
    where = (event.conversation_id, event.user_id, event.message_id)
    return (uuid7(), *where, role, event.channel, event.agent_id, event_id)


async def find(connection: Connection, organization: str, user: str, message_id: str, role: str) -> Row | None:
    return await connection.fetchrow(_FIND, organization, user, message_id, role)


async def page(connection: Connection, organization: str, conversation: UUID, after: int, limit: int) -> Sequence[Row]:
    """Oldest first, and one more than asked for if there is a next page."""
    return await connection.fetch(_PAGE, organization, conversation, after, limit + 1)


async def recent(connection: Connection, organization: str, conversation: UUID | str, limit: int) -> Sequence[Row]:
    """The last ones, oldest first."""
    rows = await connection.fetch(_RECENT, organization, conversation, limit)
    return list(reversed(rows))
