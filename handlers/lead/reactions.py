"""Group `lead-automation`: what happens when a lead is new, changed or gone. It only writes orders to other groups, and
takes back scheduled events."""

from pydantic import ValidationError

from eventbus import Backoff, Context, Group, RetryPolicy
from handlers.common.fields import known_id
from handlers.email.events import SendSubmissionConfirmation
from handlers.lead import store
from handlers.lead.events import CalculateScore, EnrichLead, LeadCreated, LeadDeleted, LeadUpdated
from handlers.lead.score import Profile
from handlers.notification.events import CreateNotification, NotificationType

ENRICHMENT_DELAY = 10.0  # seconds: whoever typed the lead in may still be adding to it
ENRICHMENT_PRIORITY = 5

lead_automation = Group(
    "lead-automation", retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)), concurrency=3
)


@lead_automation.on(LeadCreated)
async def follow_up(event: LeadCreated, ctx: Context) -> None:
    lead_id, organization_id = event.lead_id, event.organization_id
    async with ctx.transaction() as tx:
        if event.assigned_to is not None:
            named = event.name or event.email or event.phone
            notice = _notice(organization_id, lead_id, event.assigned_to, "New lead", named)
            await tx.publish(notice, key=lead_id)
        await tx.publish(
            EnrichLead(lead_id=lead_id, organization_id=organization_id),
            key=lead_id,
            delay=ENRICHMENT_DELAY,
            priority=ENRICHMENT_PRIORITY,
        )
        await tx.publish(CalculateScore(lead_id=lead_id, organization_id=organization_id), key=lead_id)
        confirmation = _confirmation(event, ctx)
        if confirmation is not None:
            await tx.publish(confirmation, key=lead_id, organization=organization_id)


@lead_automation.on(LeadUpdated)
async def follow_changes(event: LeadUpdated, ctx: Context) -> None:
    """Order a new score if a field changed on which the score depends (these have the same names on the wire). Notify
    the user to whom the lead was assigned, unless it has been assigned to somebody else since."""
    lead_id = known_id(event.lead_id)
    if lead_id is None:
        return
    async with ctx.transaction() as tx:
        row = await store.find(tx.connection, event.organization_id, lead_id)
        if row is None:
            return
        if event.changes.keys() & set(Profile._fields):
            order = CalculateScore(lead_id=event.lead_id, organization_id=event.organization_id)
            await tx.publish(order, key=event.lead_id)
        user_id = event.changes.get("assignedTo", {}).get("new")
        if user_id is not None and user_id == row["assigned_to"]:
            named = row["name"] or row["email"] or row["phone"]
            notice = _notice(event.organization_id, event.lead_id, user_id, "Lead assigned", named)
            await tx.publish(notice, key=event.lead_id)


@lead_automation.on(LeadDeleted)
async def clear_up(event: LeadDeleted, ctx: Context) -> None:
    """Take back scheduled events about the lead and its tasks, which were deleted with it. Those that are not found
    come and do nothing: the relay has not been there yet, or they are due later than the outbox keeps their rows."""
    async with ctx.transaction() as tx:
        for event_id, event_type in await store.scheduled(tx.connection, event.organization_id, event.lead_id):
            await ctx.cancel(event_id, event_type)


def _confirmation(event: LeadCreated, ctx: Context) -> SendSubmissionConfirmation | None:
    """None if there is no address to write to. An invalid address only costs the lead this mail."""
    if event.email is None:
        return None
    try:
        return SendSubmissionConfirmation(to=event.email, data={"leadId": event.lead_id, "name": event.name})
    except ValidationError as error:
        ctx.log.warning(
            "no confirmation is sent: its address is none", lead=event.lead_id, reason=error.errors()[0]["msg"]
        )
        return None


def _notice(organization: str, lead_id: str, user_id: str, title: str, named: str | None) -> CreateNotification:
    return CreateNotification(
        user_id=user_id,
        organization_id=organization,
        title=title,
        message=f"{named or 'A lead'} was assigned to you",
        action_url=f"/leads/{lead_id}",
        notification_type=NotificationType.INFO,
    )
