"""/api/messages: what is said to agents, and what has become of it. /api/conversations: the history."""

from uuid import UUID

from gateway.api import Call, Routes
from handlers.message import service
from handlers.message.models import Accepted, HistoryQuery, NewMessage, Said
from handlers.paging import Page

messages = Routes("/api/messages")
conversations = Routes("/api/conversations")


@messages.post(status=202, location="/api/messages/{data.message_id}/status", transaction=False)
async def send_message(call: Call, body: NewMessage) -> Accepted:
    """Say something to an agent; the same id again is the same job."""
    return await service.accept_now(call.bus, call.origin, call.caller.user, call.caller.tier, body)


@conversations.get("/{conversation_id}/messages")
async def list_messages_of_conversation(call: Call, conversation_id: UUID, query: HistoryQuery) -> Page[Said]:
    """What was said in a conversation of the caller's, oldest first."""
    return await service.history(call.tx, call.organization, call.caller.user, conversation_id, query)
