"""Orders to send mail. Nobody handles them yet: they wait in their stream."""

from typing import Any

from eventbus import Event


class SendSubmissionConfirmation(Event, type="email.send_submission_confirmation"):
    """`data` is what the template may use."""

    to: str
    data: dict[str, Any]
