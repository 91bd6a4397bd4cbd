"""The last messages of a conversation, for the workflow: in Redis, and from PostgreSQL when Redis has lost them."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from eventbus import Context, Full
from eventbus.contract.transaction import Row
from eventbus.process.safe_logging import get_logger
from handlers.message import store

KEPT = 50  # messages
LIFETIME = 7 * 86_400.0  # seconds after the last message

log = get_logger("handlers")


async def before(ctx: Context, organization: str, conversation: UUID, position: int) -> list[dict[str, Any]]:
    """The messages before the one at this position, as far as they are kept, oldest first."""
    items = await ctx.recall(_name(organization, conversation))
    if not items:
        async with ctx.side_transaction() as tx:
            rows = await store.recent(tx.connection, organization, conversation, KEPT)
        items = list(await keep(ctx, organization, conversation, rows))
    found = [orjson.loads(item) for item in items]
    return [{name: one[name] for name in _TOLD} for one in found if one["position"] < position]


async def keep(ctx: Context, organization: str, conversation: UUID, rows: Sequence[Row]) -> Mapping[bytes, int]:
    """Copy the last rows, KEPT of them, to Redis after something was written down. All are sent each time, so that what
    was lost is there again. Returns the copies with their positions."""
    items = {_packed(row): row["position"] for row in rows}
    try:
        await ctx.remember(_name(organization, conversation), items, keep=KEPT, seconds=LIFETIME)
    except Full as error:  # a copy is not worth a failure
        log.warning("a conversation is not kept in Redis", reason=str(error))
    return items


_TOLD = ("role", "content", "messageId", "createdAt")


def _packed(row: Row) -> bytes:
    """The row as JSON; one row always gives the same bytes."""
    return orjson.dumps(
        {
            "position": row["position"],
            "role": row["role"],
            "content": row["content"],
            "messageId": row["message_id"],
            "createdAt": row["created_at"],
        }
    )


def _name(organization: str, conversation: UUID) -> str:
    """The conversation comes last and has a fixed length, so that no two conversations share a name."""
    return f"conversation:{organization}:{conversation}"
