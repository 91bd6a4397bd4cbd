"""Orders to send mail. An address that is none is refused when the order is made.

`data` is what the template may use; which of its fields a letter cannot do without is said below. The organization is
the envelope's.
"""

from typing import Annotated, Any

from pydantic import Field

from eventbus import Event
from handlers.common.fields import Email


class MailOrder(Event):
    to: Email
    data: dict[str, Any]


class SendWelcome(MailOrder, type="email.send_welcome"):
    """To somebody who has an account now. `data`: name?, actionUrl?"""


class SendLeadNotification(MailOrder, type="email.send_lead_notification"):
    """To whoever is to look after a lead. `data`: leadId, name?, email?, phone?, company?, source?, score?,
    actionUrl?"""


class SendSubmissionConfirmation(MailOrder, type="email.send_submission_confirmation"):
    """To a lead: what he sent has arrived. `data`: leadId?, name?"""


class SendBulk(Event, type="email.send_bulk"):
    """The same letter to each of several, none of whom sees the others. `data`: subject, message (an empty line
    parts paragraphs), name?, unsubscribeUrl?"""

    to: Annotated[list[Email], Field(min_length=1)]
    data: dict[str, Any]
