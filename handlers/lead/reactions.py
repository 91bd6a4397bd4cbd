"""Group `lead-automation`: what a lead sets off that is new, changed or gone. It writes nothing but orders to other
groups, and takes back what is scheduled."""

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
    """A new score if one of the fields changed that it depends on (none has another name on the wire); and whoever it
    is assigned to now hears of it, unless somebody else has got it since."""
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
    """Its tasks went with it. What is scheduled about it and them need not come any more; what is not found here, since
    the relay has not been there yet or it is due in more than the outbox keeps, comes and does nothing."""
    async with ctx.transaction() as tx:
        for event_id, event_type in await store.scheduled(tx.connection, event.organization_id, event.lead_id):
            await ctx.cancel(event_id, event_type)


def _confirmation(event: LeadCreated, ctx: Context) -> SendSubmissionConfirmation | None:
    """None where there is nobody to write to: an address that is none costs the lead its mail alone."""
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
