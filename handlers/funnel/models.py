"""Funnels on the wire."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import Field, model_validator

from handlers.common.fields import Answer, Line, Request, Text

TEN_YEARS = 87_600.0  # hours

Hours = Annotated[float, Field(ge=0, le=TEN_YEARS, allow_inf_nan=False)]


class NewTaskTemplate(Request):
    """Without `after` it becomes a task when a lead enters the step, else when the task of that title is completed."""

    title: Line
    description: Text | None = None
    due_in_hours: Hours | None = None
    after: Line | None = None


class NewStep(Request):
    name: Line
    task_templates: list[NewTaskTemplate] = Field(default=[], max_length=100)

    @model_validator(mode="after")
    def _check_chain(self) -> Self:
        after = {template.title: template.after for template in self.task_templates}
        if len(after) < len(self.task_templates):
            raise ValueError("two task templates of a step have the same title")
        for template in self.task_templates:
            if template.after is not None and template.after not in after:
                raise ValueError(f"{template.title!r} comes after {template.after!r}, which this step does not have")
            if template.title in _predecessors(template.title, after):
                raise ValueError(f"{template.title!r} comes after itself")
        return self


def _predecessors(title: str, after: dict[str, str | None]) -> Iterator[str]:
    """The titles that come before, nearest first; ends after one round if they form a circle."""
    previous = after.get(title)
    for _ in after:
        if previous is None:
            return
        yield previous
        previous = after.get(previous)


class NewFunnel(Request):
    name: Line
    steps: list[NewStep] = Field(min_length=1, max_length=100)


class TaskTemplate(Answer):
    id: UUID
    title: str
    description: str | None
    due_in_hours: float | None
    after: str | None


class Step(Answer):
    id: UUID
    name: str
    task_templates: list[TaskTemplate]


class Funnel(Answer):
    id: UUID
    organization_id: str
    name: str
    steps: list[Step]
    created_at: datetime
