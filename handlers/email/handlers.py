"""Group `email`: orders become mails.

A mail is sent at least once. If this process dies between the server's answer to the mail and the note that follows it,
nobody knows that it was sent, and it is sent again; both have the same Message-ID. Another delivery of an event that
was noted sends nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventbus import Backoff, Context, Group, RateLimit, RetryPolicy
from handlers.common.once import is_done, note_done
from handlers.email.events import SendBulk, SendLeadNotification, SendSubmissionConfirmation, SendWelcome
from handlers.email.letters import Kind, render
from handlers.email.mail import address, compose
from handlers.email.postbox import POSTBOX

PARTS = 100  # events that a list becomes: what one transaction writes is bounded, however long the list

email = Group(
    "email",
    retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)),
    concurrency=5,
    rate_limit=RateLimit(10, per=1.0),
    track=True,
    keep_completed=100,
    keep_failed=500,
)


@email.on(SendWelcome)
async def send_welcome(event: SendWelcome, ctx: Context) -> None:
    await _send(ctx, Kind.WELCOME, event.to, event.data)


@email.on(SendLeadNotification)
async def send_lead_notification(event: SendLeadNotification, ctx: Context) -> None:
    await _send(ctx, Kind.LEAD_NOTIFICATION, event.to, event.data)


@email.on(SendSubmissionConfirmation)
async def send_submission_confirmation(event: SendSubmissionConfirmation, ctx: Context) -> None:
    await _send(ctx, Kind.SUBMISSION_CONFIRMATION, event.to, event.data)


@email.on(SendBulk)
async def send_bulk(event: SendBulk, ctx: Context) -> None:
    """A list becomes shorter lists, and these become events for one address each, which are sent, fail and are tried
    again by themselves. Each split is one transaction: it has happened as a whole, once, or not at all."""
    recipients = distinct(event.to)
    if len(recipients) == 1:
        await _send(ctx, Kind.BULK, recipients[0], event.data)
        return
    async with ctx.transaction() as tx:
        for part in split(recipients):
            order = SendBulk(to=part, data=event.data)
            await tx.publish(order, key=ctx.envelope.subject, priority=ctx.envelope.priority)


async def _send(ctx: Context, kind: Kind, to: str, data: Mapping[str, Any]) -> None:
    if await is_done(ctx):
        return
    postbox = await ctx.use(POSTBOX)
    recipient = address("the recipient", to)
    message = compose(render(kind, data), sender=postbox.sender, to=recipient, event_id=ctx.event_id)
    await postbox.send(message, recipient)
    await note_done(ctx)


def distinct(addresses: Sequence[str]) -> list[str]:
    """Each mailbox once, in order. `Ada@` and `ada@` count as one: servers may tell them apart, but none does."""
    first: dict[str, str] = {}
    for one in addresses:
        first.setdefault(one.casefold(), one)
    return list(first.values())


def split(recipients: Sequence[str]) -> Iterator[list[str]]:
    """At most PARTS lists of the same length, the last of which may be shorter."""
    size = -(-len(recipients) // PARTS)
    for start in range(0, len(recipients), size):
        yield list(recipients[start : start + size])
