"""Group `lead-automation`: what a new lead sets off. It writes nothing but orders to other groups."""

from eventbus import Backoff, Context, Group, RetryPolicy
from handlers.email.events import SendSubmissionConfirmation
from handlers.lead.events import CalculateScore, EnrichLead, LeadCreated
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
            await tx.publish(_notice(event, event.assigned_to), key=lead_id)
        await tx.publish(
            EnrichLead(lead_id=lead_id, organization_id=organization_id),
            key=lead_id,
            delay=ENRICHMENT_DELAY,
            priority=ENRICHMENT_PRIORITY,
        )
        await tx.publish(CalculateScore(lead_id=lead_id, organization_id=organization_id), key=lead_id)
        if event.email is not None:
            confirmation = SendSubmissionConfirmation(to=event.email, data={"leadId": lead_id, "name": event.name})
            await tx.publish(confirmation, key=lead_id, organization=organization_id)


def _notice(event: LeadCreated, user_id: str) -> CreateNotification:
    return CreateNotification(
        user_id=user_id,
        organization_id=event.organization_id,
        title="New lead",
        message=f"{event.name or event.email or event.phone or 'A lead'} was assigned to you",
        action_url=f"/leads/{event.lead_id}",
        notification_type=NotificationType.INFO,
    )
