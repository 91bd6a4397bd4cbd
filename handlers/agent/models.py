"""Agents on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from handlers.common.fields import Answer, Label, Line, Request, Text

# A workflow becomes a part of a URL's path: it holds nothing that would need quoting, or lead out of that path.
Workflow = Annotated[
    str,
    StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)*$"),
    Field(max_length=200),
]
DEFAULT_WORKFLOW = "chat"


class NewAgent(Request):
    """`workflow` names the webhook of N8N that answers for the agent; `chat` if none is given."""

    name: Line
    model: Label | None = None
    system_prompt: Text | None = None
    workflow: Workflow | None = None


class Agent(Answer):
    id: UUID
    organization_id: str
    user_id: str
    name: str
    model: str | None
    system_prompt: str | None
    workflow: str | None
    created_at: datetime
