"""Deletes the rows about sends to outside services, and about messages from them, when no repeat can come any more.

deliveries        keep a replayed event from being sent again: its dead letter is kept for 30 days
inbound_messages  keep a message that a provider repeats from reaching the agent again: it repeats for a week at most

KEPT is far longer than both. Runs once a day, over all organizations together: only a row's age counts, not its owner.
"""

from datetime import timedelta

from eventbus import Context, Tick
from eventbus.process.safe_logging import get_logger
from handlers.delivery.handlers import delivery

KEPT = timedelta(days=90)
BATCH = 10_000  # rows of a statement: nobody has to wait for longer than one batch takes
BATCHES = 100  # for each table and day, so that the handler's time is bounded

_FORGET = {
    "deliveries": """
        DELETE FROM deliveries WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM deliveries WHERE updated_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED
        ))
    """,
    "inbound_messages": """
        DELETE FROM inbound_messages WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM inbound_messages WHERE received_at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED
        ))
    """,
}

log = get_logger("handlers.retention")


@delivery.cron("41 3 * * *")
async def forget_old_traffic(_tick: Tick, ctx: Context) -> None:
    """Delete in batches that commit one by one. What a dead process leaves goes the next day, or at another attempt."""
    for table, statement in _FORGET.items():
        forgotten = 0
        for _ in range(BATCHES):
            deleted = await _delete(ctx, statement)
            forgotten += deleted
            if deleted < BATCH:
                break
        if forgotten:
            log.info("old rows forgotten", table=table, count=forgotten)


async def _delete(ctx: Context, statement: str) -> int:
    async with ctx.side_transaction() as tx:
        done: str = await tx.connection.execute(statement, KEPT, BATCH)
    return int(done.removeprefix("DELETE "))
