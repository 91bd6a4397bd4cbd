"""How a message gets in, and how its conversation is read.

accept      in a transaction of the caller's: the question's row and its event commit together
accept_now  straight to Redis: what `POST /api/messages` does a thousand times a second. The worker writes the row

Either way a message is known by user and id: the first one with an id is the job. If both ways are taken at once, the
row decides. See handlers.message.handlers.
"""

from uuid import UUID

import orjson

from eventbus import EventBus, Origin, Status, Transaction
from eventbus.contract.codec import envelop
from eventbus.contract.dedupe import Once
from eventbus.contract.outgoing import Outgoing
from eventbus.contract.transaction import Connection, Row
from eventbus.event import stream_of, uuid7
from handlers.agent import store as agents
from handlers.agent.known import KNOWN_AGENTS
from handlers.common.errors import Conflict, Invalid, NotFound
from handlers.common.lookups import look
from handlers.common.paging import Page, cut
from handlers.delivery.guard import check_callback_url
from handlers.message import conversations, store
from handlers.message.events import Channel, MessageReceived
from handlers.message.models import Accepted, HistoryQuery, Job, NewMessage, Said
from handlers.partners.services import SERVICES

WINDOW = 24 * 3_600.0  # seconds in which Redis knows an id again, as for an Idempotency-Key; after that the row does
PREMIUM = 2  # by so many priorities premium users are ahead
ESTIMATE = 5  # seconds
STREAM = stream_of(MessageReceived.event_type)

_ACCEPTED = "The message is being processed"
_OTHER = "this id belongs to another message"


async def accept(tx: Transaction, organization: str, user: str, tier: str, new: NewMessage) -> Accepted:
    """Write row and event in the caller's transaction. The same id with the same content is the same job.

    A conversation that is given must be the user's, or made for him by `conversations.begin(organization, user, seed)`.

    Raises Invalid for an agent or a conversation that is not the user's, Conflict if the id belongs to another message.
    """
    if await agents.find(tx.connection, organization, user, new.agent_id) is None:
        raise Invalid("agentId", "there is no such agent")
    event = await _question(tx.connection, organization, user, new)
    await store.begin_conversation(tx.connection, organization, user, UUID(event.conversation_id))
    if await store.insert_question(tx.connection, organization, event, None) is None:
        first = await store.find(tx.connection, organization, user, event.message_id, "user")
        assert first is not None, "it was in the way"
        _check_same(event, first)
        return _accepted(event)
    event_id = await tx.publish(
        event, key=event.conversation_id, priority=_priority(tier, new), organization=organization
    )
    await store.name_event(tx.connection, organization, event, event_id)
    return _accepted(event)


async def accept_now(bus: EventBus, origin: Origin, user: str, tier: str, new: NewMessage) -> Accepted:
    """As `accept`, but returns when the event is in Redis, or in the spool. The organization is the origin's.
    PostgreSQL is only asked for what is not known yet. Also raises Invalid for a callback URL that is never called."""
    organization = origin.organization
    assert organization is not None, "the gateway knows whose request it is"
    if new.channel is Channel.API:
        await _check_callback(bus, new)
    known = await bus.resources.use(KNOWN_AGENTS)
    if not await known.has(bus, organization, user, new.agent_id):
        raise Invalid("agentId", "there is no such agent")
    if new.conversation_id is None or conversations.belongs(new.conversation_id, organization, user):
        event = _told(organization, user, new)
    else:
        event = await look(bus, lambda connection: _question(connection, organization, user, new))
    envelope = envelop(
        event, origin, key=event.conversation_id, priority=_priority(tier, new), organization=organization
    )
    if new.id is None:
        item = Outgoing(envelope._replace(id=event.message_id))
    else:
        item = Outgoing(envelope, once=once_for(user, new.id))
    [receipt] = await bus.forward([item])
    if receipt.status is Status.DUPLICATE:
        await _check_first(bus, organization, user, event, receipt.id)
    return _accepted(event)


async def _check_callback(bus: EventBus, new: NewMessage) -> None:
    """Check what the URL alone tells, before its name is resolved; the rest is refused when it is called."""
    try:
        check_callback_url(str(new.channel_metadata["callbackUrl"]), (await bus.resources.use(SERVICES)).callback_allow)
    except ValueError as error:
        raise Invalid("channelMetadata", f"callbackUrl: {error}") from None


async def _question(connection: Connection, organization: str, user: str, new: NewMessage) -> MessageReceived:
    """The question's event. Raises Invalid for a conversation that is not the user's."""
    given = new.conversation_id
    if (
        given is not None
        and not conversations.belongs(given, organization, user)
        and await store.owner(connection, organization, given) != user
    ):
        raise Invalid("conversationId", "there is no such conversation")
    return _told(organization, user, new)


def _told(organization: str, user: str, new: NewMessage) -> MessageReceived:
    conversation = new.conversation_id or conversations.begin(organization, user, new.id)
    return MessageReceived(
        message_id=new.id or uuid7(),
        conversation_id=str(conversation),
        agent_id=str(new.agent_id),
        user_id=user,
        channel=new.channel,
        channel_metadata=dict(new.channel_metadata),
        message=new.message,
    )


def _priority(tier: str, new: NewMessage) -> int:
    return max(1, new.priority - PREMIUM) if tier == "premium" else new.priority


def once_for(user: str, message_id: str) -> Once:
    """The id's key for this user. No id has a blank in it, so that no two users share a key."""
    return Once(f"{message_id} {user}", WINDOW)


def _accepted(event: MessageReceived) -> Accepted:
    job = Job(
        message_id=event.message_id,
        conversation_id=event.conversation_id,
        job_id=event.message_id,
        estimated_time=ESTIMATE,
    )
    return Accepted(message=_ACCEPTED, data=job)


# The same id again ----------------------------------------------------------------------------------------------------


async def _check_first(bus: EventBus, organization: str, user: str, event: MessageReceived, event_id: str) -> None:
    """Raises Conflict if the first message with this id said something else. If neither Redis nor PostgreSQL knows that
    message any more, it is taken for the same."""
    standing = await bus.events.locate(event_id, [STREAM])
    if standing.envelope is not None:
        if orjson.loads(standing.envelope.data) != event.model_dump(mode="json", by_alias=True):
            raise Conflict(_OTHER)
        return
    first = await look(bus, lambda connection: store.find(connection, organization, user, event.message_id, "user"))
    if first is not None:
        _check_same(event, first)


def _check_same(event: MessageReceived, first: Row) -> None:
    mine = (event.message, event.channel, event.agent_id, event.conversation_id)
    if mine != (first["content"], first["channel"], str(first["agent_id"]), str(first["conversation_id"])):
        raise Conflict(_OTHER)


# Reading --------------------------------------------------------------------------------------------------------------


async def history(tx: Transaction, organization: str, user: str, conversation: UUID, query: HistoryQuery) -> Page[Said]:
    """Oldest first; empty if the conversation is the user's and nothing of it is written yet. Raises NotFound if it is
    not the user's."""
    owner = await store.owner(tx.connection, organization, conversation)
    if owner != user and not (owner is None and conversations.belongs(conversation, organization, user)):
        raise NotFound("conversation")
    found = await store.page(tx.connection, organization, conversation, query.cursor or 0, query.limit)
    rows, cursor = cut(found, query.limit, key="position")
    return Page[Said](items=[said(row) for row in rows], next_cursor=cursor)


def said(row: Row) -> Said:
    fields = dict(row)
    return Said(message=fields.pop("content"), **{name: fields[name] for name in Said.model_fields if name in fields})
