"""A lead as its own events tell it: the values that it was created with, and every change since.

The application works with the row in `leads`. These events keep how the row came to be as it is, in order, for as long
as there is a database: see handlers.lead.timeline.
"""

from pydantic.alias_generators import to_camel

from eventbus import Aggregate, applies
from handlers.lead.events import LeadCreated, LeadDeleted, LeadMovedToStep, LeadUpdated


class LeadFacts(Aggregate, name="lead"):
    """The columns of `leads` that events tell of. A lead that was there before its events were kept begins with the
    first of them that was."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    status: str | None = None
    source: str | None = None
    step_id: str | None = None
    assigned_to: str | None = None
    is_deleted: bool = False

    @applies(LeadCreated)
    def create(self, event: LeadCreated) -> None:
        for field in LeadCreated.model_fields.keys() & _FIELDS.values():
            setattr(self, field, getattr(event, field))

    @applies(LeadUpdated)
    def update(self, event: LeadUpdated) -> None:
        for name, change in event.changes.items():
            if name in _FIELDS:
                setattr(self, _FIELDS[name], change["new"])

    @applies(LeadMovedToStep)
    def move(self, event: LeadMovedToStep) -> None:
        self.step_id = event.new_step_id

    @applies(LeadDeleted)
    def delete(self, _event: LeadDeleted) -> None:
        self.is_deleted = True


_FIELDS = {to_camel(field): field for field in LeadFacts.model_fields}  # by their names on the wire
