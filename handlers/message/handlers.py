"""Group `message`: a question goes to its agent's workflow, and the workflow's answer becomes the response.

The row of the question is written first. It keeps the question, whatever becomes of it, and by it a message that was
accepted twice is answered once. Response and `message.responded` commit together, once. Copies in Redis and messages
over pub/sub follow the commit. If the message is handled again, they are made again, but the workflow is not asked
again. If a worker dies while the workflow works, the workflow is asked once more, with the same `webhook-id`.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from eventbus import Backoff, Connection, Context, Finished, Group, Reject, RetryPolicy, SlowLane
from eventbus.contract.codec import open_event
from eventbus.contract.delivery import Dead
from eventbus.contract.transaction import Row
from eventbus.errors import CodecError
from handlers.agent import store as agents
from handlers.agent.models import DEFAULT_WORKFLOW
from handlers.common.fields import known_id
from handlers.common.pushing import Broadcaster, push
from handlers.message import recollection, store, workflow
from handlers.message.events import Channel, MessageReceived, MessageResponded

RESPONSES, CONVERSATION = (
    "pubsub:response:",
    "pubsub:conversation:",
)  # followed by the channel, or the conversation's id

message = Group(
    "message",
    retry=RetryPolicy(attempts=3, backoff=Backoff.exponential(2.0)),
    concurrency=5,
    slow_lane=SlowLane(45, after=workflow.STEPS_ASIDE_AFTER),  # room for nine workflows that hang, 5 calls each
    timeout=180.0,  # the workflow has 120 of them
    track=True,
    keep_completed=10_000,
    keep_failed=10_000,
)


class Response(NamedTuple):
    """The row of a response, and the last rows of its conversation, that one included."""

    row: Row
    recent: Sequence[Row]


class Job(NamedTuple):
    """A question that is to be answered. `agent`: None if it is gone by now. `first`: whether nothing was said before.
    `response`: the one that there is already, if any."""

    organization: str
    user: str
    conversation: UUID
    event: MessageReceived
    position: int
    agent: Row | None
    first: bool
    response: Response | None


@message.on(MessageReceived)
async def answer_message(event: MessageReceived, ctx: Context) -> None:
    job = await _begin(event, ctx)
    if job is None:
        return
    await _spread(job, ctx, job.response or await _respond(job, ctx))
    await _tell(job, ctx, 100)


async def _begin(event: MessageReceived, ctx: Context) -> Job | None:
    """Writes the question down. None if the message came twice, and another event answers it."""
    organization, user = ctx.organization_id, event.user_id
    conversation, agent_id = known_id(event.conversation_id), known_id(event.agent_id)
    if organization is None or user is None or conversation is None or agent_id is None:
        raise Reject("a message needs an organization, a userId, and ids of an agent and a conversation")
    response = None
    async with ctx.side_transaction() as tx:
        agent = await agents.find(tx.connection, organization, user, agent_id)
        begun = await store.begin_conversation(tx.connection, organization, user, conversation)
        if not begun.own:
            raise Reject("the conversation is another user's")
        question = await store.insert_question(tx.connection, organization, event, ctx.event_id)
        if question is None:
            question = await store.find(tx.connection, organization, user, event.message_id, "user")
            response = await _find(tx.connection, organization, user, conversation, event.message_id)
    assert question is not None, "it was in the way"
    if str(question["event_id"]) != ctx.event_id:
        ctx.log.info("duplicate message ignored", message_id=event.message_id, first=str(question["event_id"]))
        return None
    return Job(organization, user, conversation, event, question["position"], agent, begun.new, response)


async def _respond(job: Job, ctx: Context) -> Response:
    began = time.perf_counter()
    if job.agent is None:
        raise Reject("there is no such agent")
    await _tell(job, ctx, 10)
    history = [] if job.first else await recollection.before(ctx, job.organization, job.conversation, job.position)
    await _tell(job, ctx, 50)
    answer = await workflow.ask(ctx, job.agent["workflow"] or DEFAULT_WORKFLOW, _payload(job, job.agent, history))
    await _tell(job, ctx, 80)
    event = job.event
    responded = MessageResponded(
        message_id=event.message_id,
        conversation_id=event.conversation_id,
        agent_id=event.agent_id,
        user_id=job.user,
        channel=event.channel,
        channel_metadata=event.channel_metadata,
        message=answer.message,
        metadata={
            "model": answer.model or job.agent["model"],
            "tokensUsed": answer.tokens_used,
            "processingTime": round((time.perf_counter() - began) * 1000),
            "finishReason": answer.finish_reason,
        },
    )
    written: list[Response] = []  # stays empty if another delivery was faster: then the block is left at once
    async with ctx.transaction() as tx:
        recent = await store.insert_response(
            tx.connection, job.organization, responded, ctx.event_id, recollection.KEPT
        )
        await tx.publish(responded, key=event.conversation_id, priority=ctx.envelope.priority)
        written.append(Response(recent[-1], recent))
    return written[0] if written else await _committed_before(job, ctx)


async def _committed_before(job: Job, ctx: Context) -> Response:
    """The response that another delivery has written meanwhile."""
    async with ctx.side_transaction() as tx:
        response = await _find(tx.connection, job.organization, job.user, job.conversation, job.event.message_id)
    assert response is not None, "it has committed"
    return response


async def _find(
    connection: Connection, organization: str, user: str, conversation: UUID, message_id: str
) -> Response | None:
    row = await store.find(connection, organization, user, message_id, "assistant")
    if row is None:
        return None
    return Response(row, await store.recent(connection, organization, conversation, recollection.KEPT))


def _payload(job: Job, agent: Row, history: list[dict[str, Any]]) -> dict[str, Any]:
    event = job.event
    return {
        "messageId": event.message_id,
        "conversationId": event.conversation_id,
        "organizationId": job.organization,
        "userId": job.user,
        "channel": event.channel,
        "message": event.message,
        "agent": {
            "id": event.agent_id,
            "name": agent["name"],
            "model": agent["model"],
            "systemPrompt": agent["system_prompt"],
        },
        "history": history,
    }


async def _spread(job: Job, ctx: Context, response: Response) -> None:
    """Copy the response as it was written down, perhaps by an earlier delivery, to Redis and to whoever listens now."""
    await recollection.keep(ctx, job.organization, job.conversation, response.recent)
    row = response.row
    told = orjson.dumps(
        {
            "messageId": row["message_id"],
            "conversationId": str(row["conversation_id"]),
            "organizationId": job.organization,
            "userId": job.user,
            "channel": row["channel"],
            "channelMetadata": job.event.channel_metadata,
            "message": row["content"],
            "timestamp": row["created_at"],
            "metadata": row["metadata"],
        }
    )
    await ctx.broadcast(f"{RESPONSES}{job.event.channel}", told)
    await ctx.broadcast(f"{CONVERSATION}{job.conversation}", told)


async def _tell(job: Job, ctx: Context, percent: int) -> None:
    await ctx.progress(percent)
    await _push(ctx, job.organization, job.event, "progress", {"messageId": job.event.message_id, "progress": percent})


@message.on_dead
async def tell_of_failure(finished: Finished) -> None:
    """The user's sockets hear that there will be no response."""
    envelope, outcome = finished.envelope, finished.outcome
    if envelope is None or finished.bus is None or envelope.organization is None or not isinstance(outcome, Dead):
        return
    try:
        event = open_event(envelope)
    except CodecError:
        return
    if isinstance(event, MessageReceived):
        frame = {"messageId": event.message_id, "code": "MESSAGE_FAILED", "message": outcome.failure.error}
        await _push(finished.bus.shared, envelope.organization, event, "error", frame)


async def _push(to: Broadcaster, organization: str, event: MessageReceived, kind: str, data: dict[str, Any]) -> None:
    """Push to the sockets of a user who asked over the web; one who asked elsewhere has none to look at."""
    if event.channel is Channel.WEB and event.user_id is not None:
        await push(to, organization, event.user_id, kind, data)
