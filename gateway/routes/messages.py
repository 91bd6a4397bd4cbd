"""/api/messages: what is said to agents, and what has become of it. /api/conversations: the history."""

from uuid import UUID

from gateway.endpoints.api import Call, Routes
from handlers.common.paging import Page
from handlers.message import jobs, service
from handlers.message.models import Accepted, Health, HistoryQuery, MessageId, NewMessage, Said, Stats, Status

messages = Routes("/api/messages")
conversations = Routes("/api/conversations")


@messages.post(status=202, location="/api/messages/{data.message_id}/status", transaction=False)
async def send_message(call: Call, body: NewMessage) -> Accepted:
    """Say something to an agent; the same id again is the same job, and so is the same Idempotency-Key."""
    new = body if body.id or not call.key else body.model_copy(update={"id": call.key})
    return await service.accept_now(call.bus, call.origin, call.caller.user, call.caller.tier, new)


@messages.get("/queue/stats", transaction=False)
async def get_queue_stats(call: Call) -> Stats:
    """How many messages wait, run, and have ended."""
    return await jobs.stats(call.bus)


@messages.get("/queue/health", transaction=False, unless_success=503)
async def get_queue_health(call: Call) -> Health:
    """Whether messages are being worked on."""
    return await jobs.health(call.bus)


@messages.get("/{message_id}/status")
async def get_message_status(call: Call, message_id: MessageId) -> Status:
    """What has become of a message of the caller's."""
    return await jobs.status(call.bus, call.tx, call.organization, call.caller.user, message_id)


@conversations.get("/{conversation_id}/messages")
async def list_messages_of_conversation(call: Call, conversation_id: UUID, query: HistoryQuery) -> Page[Said]:
    """What was said in a conversation of the caller's, oldest first."""
    return await service.history(call.tx, call.organization, call.caller.user, conversation_id, query)
