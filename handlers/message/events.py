"""What is said to an agent, and what it says."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from eventbus import Event


class Channel(StrEnum):
    """Where a message came from, and where its answer goes."""

    WEB = "web"
    WHATSAPP = "whatsapp"
    TELEGRAM = "telegram"
    API = "api"


class MessageEvent(Event):
    """The organization is the envelope's.

    channel_metadata  where the answer goes: web {websocketId?}, whatsapp {to}, telegram {chatId}, api {callbackUrl}
    """

    message_id: str
    conversation_id: str
    agent_id: str | None = None
    user_id: str | None = None
    channel: Channel
    channel_metadata: dict[str, Any] = Field(default={})
    message: str
    metadata: dict[str, Any] | None = None


class MessageReceived(MessageEvent, type="message.received"):
    """`metadata`: what the channel knows of the sender, for example a profile's name."""


class MessageResponded(MessageEvent, type="message.responded"):
    """`message_id` is that of the message that is answered. `metadata`: model, tokensUsed, processingTime (ms),
    finishReason."""
