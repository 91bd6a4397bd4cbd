"""Responses for the web: written down for the user, then pushed to the sockets that he has open, at any gateway.

The row is the guarantee: a response that found no socket waits there for the next one. A process that dies before the
push leaves the row and the event, which is delivered again and pushes again; sockets skip what they have had.
"""

from datetime import timedelta
from typing import Any

import orjson

from eventbus import Context, Reject
from handlers.common.pushing import push_surely
from handlers.message.events import MessageResponded

KEPT = timedelta(days=7)  # that a response waits for a socket; it stays in its conversation's history
WAITING = 100  # responses that wait for one user; of more, the oldest are only in the history
PRUNE_BATCH = 20  # expired rows that each new one deletes: the table cannot grow faster than it is cleared

# One statement, so one round trip: delete expired rows, keep the newest of the user's own, insert this one.
_WRITE_DOWN = """
WITH expired AS (
    DELETE FROM responses_waiting WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM responses_waiting WHERE expires_at < now() ORDER BY expires_at LIMIT $6 FOR UPDATE SKIP LOCKED
    ))
), surplus AS (
    DELETE FROM responses_waiting WHERE organization = $1 AND user_id = $2 AND message_id IN (
        SELECT message_id FROM responses_waiting WHERE organization = $1 AND user_id = $2 AND taken_at IS NULL
        ORDER BY created_at DESC, message_id DESC OFFSET $7
    )
)
INSERT INTO responses_waiting (organization, user_id, message_id, frame, expires_at)
VALUES ($1, $2, $3, $4, now() + $5::interval) ON CONFLICT DO NOTHING
"""


async def send(event: MessageResponded, ctx: Context) -> None:
    """Returns when the response is written down and all gateways have been told. Raises Reject if it has no user."""
    organization, user = ctx.organization_id, event.user_id
    if organization is None or user is None:
        raise Reject("a response for the web needs an organization and a userId")
    frame = _frame(event, ctx)
    async with ctx.transaction() as tx:
        text = orjson.dumps(frame).decode()
        of = (organization, user, event.message_id)
        await tx.connection.execute(_WRITE_DOWN, *of, text, KEPT, PRUNE_BATCH, WAITING - 1)
    await push_surely(ctx, organization, user, "message", frame)


def _frame(event: MessageResponded, ctx: Context) -> dict[str, Any]:
    """The data of a `message` frame. What the workflow did not tell is null."""
    told = event.metadata or {}
    return {
        "messageId": event.message_id,
        "conversationId": event.conversation_id,
        "message": event.message,
        "timestamp": ctx.envelope.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "metadata": {name: told.get(name) for name in ("model", "tokensUsed", "processingTime", "finishReason")},
    }
