"""Group `lead`: what is done with a lead by itself. The orders that have no handler here pass by."""

from eventbus import Backoff, Context, Group, RetryPolicy
from handlers.fields import known_id
from handlers.lead import store
from handlers.lead.events import CalculateScore
from handlers.lead.score import Profile, score

lead = Group("lead", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)), concurrency=3)


@lead.on(CalculateScore)
async def calculate_score(event: CalculateScore, ctx: Context) -> None:
    """Writes leads.score. A lead that is gone needs no score."""
    lead_id = known_id(event.lead_id)
    if lead_id is None:
        return
    async with ctx.transaction() as tx:
        row = await store.lock(tx.connection, event.organization_id, lead_id)
        if row is None:
            return
        points = score(Profile(row["name"], row["email"], row["phone"], row["company"], row["source"]))
        await store.update(tx.connection, event.organization_id, lead_id, {"score": points})
