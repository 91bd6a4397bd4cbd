"""What happens to leads, and what is to be done with them."""

from typing import Any

from eventbus import Event


class LeadCreated(Event, type="lead.created"):
    lead_id: str
    organization_id: str
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    status: str
    source: str
    funnel_id: str | None = None
    step_id: str | None = None
    assigned_to: str | None = None


class LeadUpdated(Event, type="lead.updated"):
    """`changes`: field on the wire -> {"old": …, "new": …}."""

    lead_id: str
    organization_id: str
    changes: dict[str, dict[str, Any]]


class LeadDeleted(Event, type="lead.deleted"):
    lead_id: str
    organization_id: str


class LeadMovedToStep(Event, type="lead.moved_to_step"):
    """`previous_step_id` is None for a lead that was in no funnel."""

    lead_id: str
    previous_step_id: str | None = None
    new_step_id: str
    organization_id: str


class LeadOrder(Event):
    """Something to be done with a lead. `fields`, its own by their names on the wire, narrows it down: which are looked
    at, or sent; None means all."""

    lead_id: str
    organization_id: str
    fields: list[str] | None = None


class EnrichLead(LeadOrder, type="lead.enrich"):
    pass


class CalculateScore(LeadOrder, type="lead.calculate_score"):
    pass


class SyncToCrm(LeadOrder, type="lead.sync_to_crm"):
    pass


class SendFollowUp(LeadOrder, type="lead.send_follow_up"):
    pass
