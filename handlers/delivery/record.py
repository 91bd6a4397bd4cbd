"""The record of each send to an outside service, and what follows from it when the event is delivered again.

The state `sending` is committed before the call, the result after it. A process that dies in between leaves `sending`:
the next delivery of the event cannot know whether the message arrived. The message is sent again, since a lost one is
worse than one that comes twice; then the record says `ambiguous`. The table `deliveries` tells what each state means.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from eventbus import Context, Finished, Reject, RetryLater, Unavailable
from eventbus.contract.delivery import Dead
from eventbus.process import crash_points
from handlers.common.fields import CONTROL
from handlers.partners.calls import Unanswered, Unreachable

PATIENCE = 30.0  # seconds that PostgreSQL has to come back before a message that was sent may be sent again
PAUSE = 0.5  # seconds
LONGEST = 500  # characters of an id or an error that are kept

_BEGIN = """
INSERT INTO deliveries (organization, event_id, part, channel, state) VALUES ($1, $2, $3, $4, 'sending')
ON CONFLICT (organization, event_id, part) DO UPDATE SET
    state = 'sending', attempts = deliveries.attempts + 1, updated_at = now(),
    unanswered = deliveries.unanswered + (deliveries.state = 'sending')::integer
WHERE deliveries.sent_at IS NULL
RETURNING attempts, unanswered
"""
# Nothing is written for an attempt that another one overtook: the later one counts it among the unanswered.
_END = """
UPDATE deliveries SET
    state = CASE WHEN unanswered + $5 > 0 THEN 'ambiguous' ELSE $6 END, unanswered = unanswered + $5,
    provider_id = coalesce($7, provider_id), error = $8, updated_at = now(),
    sent_at = CASE WHEN $6 = 'sent' THEN now() END
WHERE organization = $1 AND event_id = $2 AND part = $3 AND attempts = $4
"""
_GIVE_UP = """
UPDATE deliveries SET state = 'ambiguous', unanswered = unanswered + 1, error = $3, updated_at = now()
WHERE organization = $1 AND event_id = $2 AND state = 'sending'
"""


class _Attempt(NamedTuple):
    organization: str
    event_id: str
    part: str
    number: int


Send = Callable[[], Awaitable[str | None]]


async def once(ctx: Context, channel: str, part: str, send: Send) -> None:
    """Call `send` unless it is on record that this part of the event was sent. `send` returns the provider's id of the
    message, if there is one, and raises as handlers.partners.calls.call; after any other error the record stays at
    `sending`, and the outcome is unknown."""
    organization = ctx.organization_id
    if organization is None:
        raise Reject("the event belongs to no organization")
    async with ctx.side_transaction() as tx:
        row = await tx.connection.fetchrow(_BEGIN, organization, ctx.event_id, part, channel)
    if row is None:
        ctx.log.info("sent already", channel=channel, part=part)
        return
    if row["unanswered"]:
        ctx.log.warning("may be sent twice", channel=channel, part=part, unanswered=row["unanswered"])
    attempt = _Attempt(organization, ctx.event_id, part, row["attempts"])
    try:
        provider_id = await send()
    except Unanswered as error:
        await _end(ctx, attempt, "failed", error=str(error), unanswered=1)
        raise
    except (Reject, RetryLater, Unreachable) as error:
        await _end(ctx, attempt, "failed", error=str(error))
        raise
    crash_points.point("delivery.sent")
    await _end_patiently(ctx, attempt, provider_id)
    crash_points.point("delivery.recorded")


async def _end_patiently(ctx: Context, attempt: _Attempt, provider_id: str | None) -> None:
    """Record that the message was sent. Keep trying for PATIENCE: a message that is not recorded is sent again."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await _end(ctx, attempt, "sent", provider_id=provider_id)
        except Unavailable:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(PAUSE)


async def _end(
    ctx: Context,
    attempt: _Attempt,
    state: str,
    *,
    unanswered: int = 0,
    provider_id: str | None = None,
    error: str | None = None,
) -> None:
    async with ctx.side_transaction() as tx:
        await tx.connection.execute(_END, *attempt, unanswered, state, _column(provider_id), _column(error))


def _column(text: str | None) -> str | None:
    """Text from outside, cut to LONGEST, without the control characters, of which PostgreSQL refuses NUL."""
    return text and CONTROL.sub(" ", text[:LONGEST])


async def give_up(finished: Finished) -> None:
    """For `on_dead`: if an attempt was cut off, by an abort, a timeout or the death of too many workers, its outcome
    stays unknown. The record says so, and why nothing more is tried."""
    envelope, outcome, bus = finished.envelope, finished.outcome, finished.bus
    if envelope is None or bus is None or not isinstance(outcome, Dead):
        return
    async with bus.transaction() as tx:
        await tx.connection.execute(_GIVE_UP, envelope.organization, envelope.id, _column(outcome.failure.error))
