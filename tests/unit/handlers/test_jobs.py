"""One call for each order."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import ValidationError

from eventbus import Context, Envelope, Event, Receipt, Status
from eventbus.event import uuid7
from eventbus.testing import MemoryBus
from handlers import jobs
from handlers.email.events import SendBulk, SendLeadNotification, SendSubmissionConfirmation, SendWelcome
from handlers.lead.events import CalculateScore, EnrichLead, SendFollowUp, SyncToCrm
from handlers.notification.events import CreateNotification, NotificationType, SendPush, SendSms

Call = Callable[..., Awaitable[Receipt]]
MAIL = "ada@example.com"
ORDERS: list[tuple[Call, dict[str, Any], Event, str | None]] = [
    (jobs.send_welcome_email, {"to": MAIL, "data": {"name": "Ada"}}, SendWelcome(to=MAIL, data={"name": "Ada"}), None),
    (
        jobs.send_lead_notification,
        {"to": MAIL, "lead": "L", "data": {"name": "Lea"}},
        SendLeadNotification(to=MAIL, data={"leadId": "L", "name": "Lea"}),
        "L",
    ),
    (
        jobs.send_submission_confirmation,
        {"to": MAIL, "lead": "L"},
        SendSubmissionConfirmation(to=MAIL, data={}),
        "L",
    ),
    (
        jobs.send_bulk_email,
        {"to": (MAIL, "b@example.com"), "subject": "s", "message": "m", "data": {"name": "n"}},
        SendBulk(to=[MAIL, "b@example.com"], data={"name": "n", "subject": "s", "message": "m"}),
        None,
    ),
    (
        jobs.enrich_lead,
        {"lead": "L", "fields": ("email",)},
        EnrichLead(lead_id="L", organization_id="acme", fields=["email"]),
        "L",
    ),
    (jobs.calculate_lead_score, {"lead": "L"}, CalculateScore(lead_id="L", organization_id="acme"), "L"),
    (jobs.sync_lead_to_crm, {"lead": "L"}, SyncToCrm(lead_id="L", organization_id="acme"), "L"),
    (jobs.send_lead_follow_up, {"lead": "L"}, SendFollowUp(lead_id="L", organization_id="acme"), "L"),
    (
        jobs.create_notification,
        {"user": "u", "title": "t", "message": "m", "action_url": "/x", "about": "L"},
        CreateNotification(
            user_id="u",
            organization_id="acme",
            title="t",
            message="m",
            action_url="/x",
            notification_type=NotificationType.INFO,
        ),
        "L",
    ),
    (
        jobs.send_push_notification,
        {"user": "u", "message": "m", "title": "t"},
        SendPush(user_id="u", organization_id="acme", title="t", message="m"),
        None,
    ),
    (
        jobs.send_sms,
        {"user": "u", "to": "+49301234567", "message": "m"},
        SendSms(user_id="u", organization_id="acme", message="m", to="+49301234567"),
        None,
    ),
]


def _name(value: object) -> str:
    return getattr(value, "__name__", "") if callable(value) else ""


@pytest.mark.parametrize(("call", "given", "order", "about"), ORDERS, ids=_name)
async def test_a_call_is_its_order(call: Call, given: dict[str, Any], order: Event, about: str | None) -> None:
    bus = MemoryBus()
    receipt = await call(bus, organization="acme", **given)
    [item] = bus.outgoing()
    assert bus.published(type(order)) == [order]
    assert (item.envelope.id, receipt.status) == (receipt.id, Status.STORED)
    assert (item.envelope.organization, item.envelope.subject, item.envelope.priority) == ("acme", about, 5)

    later = await call(bus, organization="acme", **given, delay=5.0, priority=2, dedupe_key="once")
    again = await call(bus, organization="acme", **given, delay=5.0, priority=2, dedupe_key="once")
    assert (later.status, again) == (Status.SCHEDULED, (later.id, Status.DUPLICATE))
    assert bus.outgoing()[1].envelope.priority == 2


def test_there_is_one_for_each_order_that_is_handled() -> None:
    ordered = {type(order) for _, _, order, _ in ORDERS}
    assert len(ordered) == len(ORDERS)
    assert {order.event_type for order in ordered} == {
        *("lead.enrich", "lead.calculate_score", "lead.sync_to_crm", "lead.send_follow_up"),
        *("email.send_welcome", "email.send_lead_notification", "email.send_submission_confirmation"),
        *("email.send_bulk", "notification.create", "notification.send_push", "notification.send_sms"),
    }


async def test_a_handler_orders_for_the_organization_that_it_names() -> None:
    bus = MemoryBus()
    ctx = Context(bus, Envelope(uuid7(), "lead.created", b"{}", organization="umbrella"), "g", 1)
    await jobs.send_welcome_email(ctx, to=MAIL, organization="acme")
    [item] = bus.outgoing()
    assert (item.envelope.organization, item.envelope.causation_id) == ("acme", ctx.event_id)


@pytest.mark.parametrize("to", ["ada", "ada@example.com\r\nBcc: eve@example.com", ""])
async def test_what_no_mail_can_go_to_is_refused_here(to: str) -> None:
    bus = MemoryBus()
    with pytest.raises(ValidationError):
        await jobs.send_welcome_email(bus, to=to, organization="acme")
    with pytest.raises(ValidationError):
        await jobs.send_bulk_email(bus, to=[MAIL, to], organization="acme", subject="s", message="m")
    with pytest.raises(ValidationError):
        await jobs.send_bulk_email(bus, to=[], organization="acme", subject="s", message="m")
    assert bus.outgoing() == []
