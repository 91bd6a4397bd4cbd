"""The types of the contract, field by field, as they are on the wire."""

import pytest

from eventbus import Event, RateLimit
from eventbus.event import event_class
from handlers import GROUPS, history
from handlers.email.handlers import email

# type -> fields; those with ? may be absent.
CONTRACT = {
    "lead.created": "leadId organizationId name? email? phone? status source funnelId? stepId? assignedTo?",
    "lead.updated": "leadId organizationId changes",
    "lead.deleted": "leadId organizationId",
    "lead.moved_to_step": "leadId previousStepId? newStepId organizationId",
    "lead.enrich": "leadId organizationId fields?",
    "lead.calculate_score": "leadId organizationId fields?",
    "lead.sync_to_crm": "leadId organizationId fields?",
    "lead.send_follow_up": "leadId organizationId fields?",
    "task.created": "taskId leadId? organizationId title assignedTo?",
    "task.completed": "taskId leadId? organizationId title assignedTo?",
    "task.expired": "taskId leadId? organizationId title assignedTo?",
    "notification.create": "userId organizationId title message actionUrl? notificationType",
    "notification.send_push": "userId organizationId title? message to?",
    "notification.send_sms": "userId organizationId title? message to?",
    "email.send_welcome": "to data",
    "email.send_lead_notification": "to data",
    "email.send_submission_confirmation": "to data",
    "email.send_bulk": "to data",
    "message.received": "messageId conversationId agentId? userId? channel channelMetadata? message metadata?",
    "message.responded": "messageId conversationId agentId? userId? channel channelMetadata? message metadata?",
    "whatsapp.connection_established": "connectionId organizationId",
}


def _fields(cls: type[Event]) -> set[str]:
    schema = cls.model_json_schema(by_alias=True)
    required = set(schema.get("required", []))
    return {name if name in required else f"{name}?" for name in schema["properties"]}


@pytest.mark.parametrize("kind", CONTRACT)
def test_an_event_has_the_fields_of_the_contract(kind: str) -> None:
    assert _fields(event_class(kind)) == set(CONTRACT[kind].split())


def test_the_groups_are_those_of_the_design() -> None:
    policies = {
        group.name: (sorted(group.handlers), group.retry.attempts, group.concurrency, group.retry.delay_after(1))
        for group in GROUPS
    }
    assert policies == {
        "task-automation": (["lead.created", "lead.moved_to_step", "task.completed"], 3, 1, 2.0),
        "lead-automation": (["lead.created", "lead.deleted", "lead.updated"], 3, 3, 2.0),
        "lead": (["lead.calculate_score", "lead.enrich", "lead.send_follow_up", "lead.sync_to_crm"], 3, 3, 2.0),
        "email": (
            [
                "email.send_bulk",
                "email.send_lead_notification",
                "email.send_submission_confirmation",
                "email.send_welcome",
            ],
            3,
            5,
            2.0,
        ),
        "notification": (
            ["notification.create", "notification.send_push", "notification.send_sms", "task.expired"],
            2,
            10,
            5.0,
        ),
        "message": (["message.received"], 3, 5, 2.0),
        "delivery": (["message.responded", "tick_delivery.forget_old_traffic"], 3, 5, 2.0),
        "whatsapp-sync": (["whatsapp.connection_established"], 3, 1, 2.0),
        "history": ([], None, 1, 1.0),
    }
    assert [group.retry.delay_after(2) for group in GROUPS] == [4.0, 4.0, 4.0, 4.0, None, 4.0, 4.0, 4.0, 2.0]
    assert history.retry.delay_after(100) == 60.0
    assert history.tapping is not None
    assert history.tapping.streams == (), "all that there are"


def test_mail_is_limited_and_kept_as_the_design_has_it() -> None:
    assert email.limits == [RateLimit(10, per=1.0)]
    assert (email.track, email.keep_completed, email.keep_failed) == (True, 100, 500)


def test_every_type_that_is_handled_is_in_the_contract() -> None:
    """But for what recurs: those are nobody's to publish."""
    ticks = {recurring.tick.event_type for group in GROUPS for recurring in group.recurring}
    assert {kind for group in GROUPS for kind in group.handlers} - ticks <= set(CONTRACT)
