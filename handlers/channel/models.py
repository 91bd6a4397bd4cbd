"""Connections on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from handlers.common.fields import Answer, Request

Messenger = Literal["whatsapp", "telegram"]


class NewConnection(Request):
    """`account`: the phone number id of a WhatsApp business, or the id of a Telegram bot, which is what its token
    begins with. `agentId`: one of the caller's own; what comes in is said to it in his name."""

    channel: Messenger
    account: Annotated[str, Field(pattern=r"^[0-9]{1,32}$")]
    agent_id: UUID


class ChannelConnection(Answer):
    id: UUID
    channel: Messenger
    account: str
    agent_id: UUID
    user_id: str
    created_at: datetime
