"""Imports in PostgreSQL: how far they are, and the messages that they bring. Every query takes the organization."""

from collections.abc import Sequence
from uuid import UUID

from eventbus import Connection
from eventbus.contract.transaction import Row
from handlers.channel.inbound import conversation_of, message_id
from handlers.message.events import Channel
from handlers.whatsapp.history import Past

_BEGIN = """
INSERT INTO whatsapp_imports (organization, connection_id) VALUES ($1, $2)
ON CONFLICT (organization, connection_id) DO UPDATE SET cursor = whatsapp_imports.cursor
RETURNING cursor, pages, finished_at
"""
# Only from the cursor with which the page was asked for: an import that was overtaken moves nothing back.
_ADVANCE = """
UPDATE whatsapp_imports SET
    cursor = $4, pages = pages + 1, finished_at = CASE WHEN $4::text IS NULL THEN now() END
WHERE organization = $1 AND connection_id = $2 AND cursor IS NOT DISTINCT FROM $3 AND finished_at IS NULL
RETURNING true
"""
_BEGIN_CONVERSATIONS = """
INSERT INTO conversations (organization, id, user_id) SELECT DISTINCT $1, id, $2 FROM unnest($3::uuid[]) AS id
ON CONFLICT DO NOTHING
"""
# The id is derived from the provider's: a message that is there, by whichever way it came, is not written again.
_INSERT = """
INSERT INTO messages
    (organization, id, conversation_id, user_id, message_id, role, channel, agent_id, content, created_at)
SELECT $1, id, conversation, $2, id::text, role, 'whatsapp', $3, content, at
FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::timestamptz[])
     WITH ORDINALITY AS past (id, conversation, role, content, at, place)
ORDER BY place
ON CONFLICT DO NOTHING
"""


async def begin(connection: Connection, organization: str, connection_id: UUID) -> Row | None:
    """The import's row, new or not: cursor, pages, finished_at."""
    return await connection.fetchrow(_BEGIN, organization, connection_id)


async def advance(
    connection: Connection, organization: str, connection_id: UUID, cursor: str | None, after: str | None
) -> bool:
    """Move the import from `cursor` to `after`; None is the end. False if the import is not at `cursor` any more."""
    return await connection.fetchval(_ADVANCE, organization, connection_id, cursor, after) is not None


async def insert(connection: Connection, organization: str, owner: Row, messages: Sequence[Past]) -> None:
    """`owner`: the connection (account, user_id, agent_id)."""
    channel, account, user = str(Channel.WHATSAPP), owner["account"], owner["user_id"]
    talks = [conversation_of(organization, user, channel, account, past.contact) for past in messages]
    await connection.execute(_BEGIN_CONVERSATIONS, organization, user, talks)
    await connection.execute(
        _INSERT,
        organization,
        user,
        owner["agent_id"],
        [message_id(channel, account, past.provider_id) for past in messages],
        talks,
        ["user" if past.inbound else "assistant" for past in messages],
        [past.text for past in messages],
        [past.at for past in messages],
    )
