"""One function for each order that the application takes. Its signature says what the order needs.

    await send_welcome_email(bus, to="ada@example.com", organization="acme", data={"name": "Ada"})
    await enrich_lead(tx, lead=lead_id, organization="acme", delay=10.0)

`bus` is anything that publishes: an EventBus, a handler's Context, or a transaction, with which the order commits. Each
function returns what `publish` of that object returns: a receipt, or the event's id within a transaction. All take

delay       seconds that the order is kept back
priority    1 (first) to 10
dedupe_key  of several orders of one kind and organization with the same key, only the first is taken

Arguments of which no order can be made raise pydantic's ValidationError.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from eventbus import Event
from eventbus.event import NORMAL_PRIORITY
from handlers.email.events import (
    MailOrder,
    SendBulk,
    SendLeadNotification,
    SendSubmissionConfirmation,
    SendWelcome,
)
from handlers.lead.events import CalculateScore, EnrichLead, LeadOrder, SendFollowUp, SyncToCrm
from handlers.notification.events import CreateNotification, NotificationType, SendPush, SendSms

R_co = TypeVar("R_co", covariant=True)


class Publishes(Protocol[R_co]):
    """An EventBus, a Context, a Transaction or an Outbox."""

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        delay: float | None = None,
        priority: int = NORMAL_PRIORITY,
        dedupe_key: str | None = None,
        organization: str | None = None,
    ) -> R_co: ...


class Options(TypedDict, total=False):
    """The module's docstring describes these options."""

    delay: float | None
    priority: int
    dedupe_key: str | None


# E-mail. `lead`: the id of the lead whose timeline the mail belongs to. For `data` see handlers.email.events. --------


async def send_welcome_email(
    bus: Publishes[R_co],
    *,
    to: str,
    organization: str,
    data: Mapping[str, Any] = {},
    lead: str | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Order a mail that welcomes somebody who has an account now."""
    return await _mail(bus, SendWelcome(to=to, data=dict(data)), organization, lead, options)


async def send_lead_notification(
    bus: Publishes[R_co],
    *,
    to: str,
    organization: str,
    lead: str,
    data: Mapping[str, Any] = {},
    **options: Unpack[Options],
) -> R_co:
    """Order a mail to the person who is to look after the lead."""
    order = SendLeadNotification(to=to, data={"leadId": lead, **data})
    return await _mail(bus, order, organization, lead, options)


async def send_submission_confirmation(
    bus: Publishes[R_co],
    *,
    to: str,
    organization: str,
    data: Mapping[str, Any] = {},
    lead: str | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Order a mail that tells a lead that his submission has arrived."""
    return await _mail(bus, SendSubmissionConfirmation(to=to, data=dict(data)), organization, lead, options)


async def send_bulk_email(
    bus: Publishes[R_co],
    *,
    to: Sequence[str],
    organization: str,
    subject: str,
    message: str,
    data: Mapping[str, Any] = {},
    **options: Unpack[Options],
) -> R_co:
    """Order one letter to several addresses, as a mail for each. An empty line in `message` separates paragraphs."""
    order = SendBulk(to=list(to), data={**data, "subject": subject, "message": message})
    return await bus.publish(order, organization=organization, **options)


async def _mail(bus: Publishes[R_co], order: MailOrder, organization: str, lead: str | None, options: Options) -> R_co:
    return await bus.publish(order, key=lead, organization=organization, **options)


# Leads. `fields`: names on the wire; None means all. ------------------------------------------------------------------


async def enrich_lead(
    bus: Publishes[R_co],
    *,
    lead: str,
    organization: str,
    fields: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Find out more about the lead. `fields`: which of name, email, phone and company are looked at."""
    return await _order(bus, EnrichLead(lead_id=lead, organization_id=organization, fields=_list(fields)), options)


async def calculate_lead_score(
    bus: Publishes[R_co], *, lead: str, organization: str, **options: Unpack[Options]
) -> R_co:
    """Calculate the lead's score again."""
    return await _order(bus, CalculateScore(lead_id=lead, organization_id=organization), options)


async def sync_lead_to_crm(
    bus: Publishes[R_co],
    *,
    lead: str,
    organization: str,
    fields: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Send the lead's state to the external CRM. `fields`: which of the fields of GET /api/leads/{id} are sent."""
    return await _order(bus, SyncToCrm(lead_id=lead, organization_id=organization, fields=_list(fields)), options)


async def send_lead_follow_up(
    bus: Publishes[R_co], *, lead: str, organization: str, **options: Unpack[Options]
) -> R_co:
    """Ask the lead by mail whether there is anything left to do."""
    return await _order(bus, SendFollowUp(lead_id=lead, organization_id=organization), options)


async def _order(bus: Publishes[R_co], order: LeadOrder, options: Options) -> R_co:
    return await bus.publish(order, key=order.lead_id, **options)


def _list(fields: Sequence[str] | None) -> list[str] | None:
    return None if fields is None else list(fields)


# Notifications. `about`: the id of their subject; with a lead's id they are in its timeline. --------------------------


async def create_notification(
    bus: Publishes[R_co],
    *,
    user: str,
    organization: str,
    title: str,
    message: str,
    action_url: str | None = None,
    notification_type: NotificationType = NotificationType.INFO,
    about: str | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Put a notification into the user's list, and push it to his open sockets."""
    order = CreateNotification(
        user_id=user,
        organization_id=organization,
        title=title,
        message=message,
        action_url=action_url,
        notification_type=notification_type,
    )
    return await bus.publish(order, key=about, **options)


async def send_push_notification(
    bus: Publishes[R_co],
    *,
    user: str,
    organization: str,
    message: str,
    title: str | None = None,
    about: str | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Push to the browsers in which the user has subscribed to pushes."""
    order = SendPush(user_id=user, organization_id=organization, title=title, message=message)
    return await bus.publish(order, key=about, **options)


async def send_sms(
    bus: Publishes[R_co],
    *,
    user: str,
    to: str,
    organization: str,
    message: str,
    about: str | None = None,
    **options: Unpack[Options],
) -> R_co:
    """Send an SMS to a telephone number such as +49…"""
    order = SendSms(user_id=user, organization_id=organization, message=message, to=to)
    return await bus.publish(order, key=about, **options)
