"""Leads on the wire."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from eventbus.contract.history import Ending
from handlers.common.fields import Answer, Email, Label, Line, Phone, Query, Request, UserId, without_default
from handlers.common.paging import DEFAULT_LIMIT, Limit, PageQuery
from handlers.lead.timeline_cursor import CursorParameter

UNREACHABLE = "a lead needs at least one of name, email, phone"


class NewLead(Request):
    """With `funnelId` alone the lead enters the funnel's first step, with `stepId` alone that step's funnel."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [name]} for name in ("name", "email", "phone")]}
    )

    organization_id: Line | None = None
    name: Line | None = None
    email: Email | None = None
    phone: Phone | None = None
    company: Line | None = None
    source: Label = "WEBSITE"
    status: Label = "NEW"
    funnel_id: UUID | None = None
    step_id: UUID | None = None
    assigned_to: UserId | None = None

    @model_validator(mode="after")
    def _check_reachable(self) -> Self:
        if not (self.name or self.email or self.phone):
            raise ValueError(UNREACHABLE)
        return self


class LeadChanges(Request):
    """Only what is given changes; null empties a field. To another step a lead is moved: POST /{id}/move."""

    name: Line | None = None
    email: Email | None = None
    phone: Phone | None = None
    company: Line | None = None
    source: Annotated[Label, Field(json_schema_extra=without_default)] = ""
    status: Annotated[Label, Field(json_schema_extra=without_default)] = ""
    assigned_to: UserId | None = None


class Move(Request):
    step_id: UUID


class LeadQuery(PageQuery):
    status: Label | None = None
    step_id: UUID | None = None
    assigned_to: UserId | None = None


class Lead(Answer):
    id: UUID
    organization_id: str
    name: str | None
    email: str | None
    phone: str | None
    company: str | None
    source: str
    status: str
    funnel_id: UUID | None
    step_id: UUID | None
    assigned_to: str | None
    score: int | None
    enrichment: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


class TimelineQuery(Query):
    limit: Limit = DEFAULT_LIMIT
    cursor: CursorParameter | None = None


class Handled(Answer):
    """What a group has made of an event last: at which attempt, and how that ended."""

    group: str
    at: datetime
    outcome: Ending
    attempts: int
    error: str | None


class LeadEvent(Answer):
    """An event about a lead. `dueAt` is in the future while the event waits for its time, and null a week behind it.
    `version`: of the lead's own changes, which one this is."""

    id: UUID
    type: str
    time: datetime
    due_at: datetime | None
    version: int | None
    data: dict[str, Any]
    metadata: dict[str, str]
    correlation_id: str
    causation_id: str | None
    handled_by: list[Handled]
