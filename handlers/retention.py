"""What is kept of sends to services outside, and of what came in from them: for as long as anybody may repeat it.

deliveries        so that a replayed event is not sent again: its dead letter is kept for 30 days
inbound_messages  so that a message that a provider repeats is not said to the agent again: they do for a week at most

Both ends are far behind KEPT. Once a day, over all organizations together: old is what is old, whosever it is.
"""

from datetime import timedelta

from eventbus import Context, Tick
from eventbus.process.telling import get_logger
from handlers.delivery.handlers import delivery

KEPT = timedelta(days=90)
BATCH = 10_000  # rows of a statement: nobody has to wait for longer than that takes
BATCHES = 100  # of a table and day: the handler's time is bounded

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
    """A batch at a time, each committed: what a death leaves goes the next day, or when the event runs again."""
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
