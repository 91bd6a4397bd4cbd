"""A message that came in by webhook enters the flow: once for each id that its provider gave.

The note of that id and the message's event commit together. The connection of the account tells whose message it is.
A message that cannot be taken in would be no better if it were sent again: it is logged, and the provider is told that
all is well.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import JsonValue, ValidationError

from eventbus import EventBus, Origin, Transaction
from eventbus.contract.transaction import Row
from eventbus.process.safe_logging import get_logger
from handlers.channel import store
from handlers.common.errors import Refused
from handlers.common.fields import without_control
from handlers.message import conversations, service
from handlers.message.events import Channel
from handlers.message.models import MAX_MESSAGE, NewMessage

TOGETHER = 50  # messages in a transaction; those that have committed are skipped if the provider repeats the call

_ID = re.compile(r"[\x20-\x7e]{1,255}")  # of accounts and messages, as all providers have them

log = get_logger("handlers.channel")


class Inbound(NamedTuple):
    """`provider_id` is unique within the account, for good. `contact`: the sender, as the channel names him;
    `answer_to` becomes the message's channelMetadata."""

    channel: Channel
    account: str
    provider_id: str
    contact: str
    answer_to: dict[str, JsonValue]
    text: str


async def take_in(bus: EventBus, origin: Origin, messages: Sequence[Inbound]) -> None:
    """Returns when all are committed. Raises Unavailable while PostgreSQL is away."""
    for start in range(0, len(messages), TOGETHER):
        async with bus.transaction(origin) as tx:
            for message in messages[start : start + TOGETHER]:
                await _take_in(tx, message)


async def _take_in(tx: Transaction, message: Inbound) -> None:
    said = log.bind(channel=str(message.channel), account=message.account, provider_id=message.provider_id)
    if not (_ID.fullmatch(message.account) and _ID.fullmatch(message.provider_id)):
        said.warning("a message that is not understood", reason="an id of another kind")
        return
    owner = await store.of_account(tx.connection, message.channel, message.account)
    if owner is None:
        said.warning("nobody's message: the account is not connected, see POST /api/connections")
        return
    try:
        new = _new_message(owner, message)
    except ValidationError as error:
        said.warning("a message that is not understood", reason=str(error.errors(include_input=False)[0]["msg"]))
        return
    organization = owner["organization"]
    noted = message_id(message.channel, message.account, message.provider_id)
    if not await store.note_inbound(
        tx.connection,
        organization,
        channel=message.channel,
        account=message.account,
        provider_id=message.provider_id,
        message_id=noted,
    ):
        said.debug("has come in before")
        return
    try:
        await service.accept(tx, organization, owner["user_id"], "standard", new)
    except Refused as refused:
        said.warning("a message that is refused", reason=str(refused))


def _new_message(owner: Row, message: Inbound) -> NewMessage:
    return NewMessage(
        agentId=owner["agent_id"],
        message=without_control(message.text)[:MAX_MESSAGE],
        conversationId=conversation_of(
            owner["organization"], owner["user_id"], message.channel, message.account, message.contact
        ),
        channel=message.channel,
        channelMetadata=message.answer_to,
        id=str(message_id(message.channel, message.account, message.provider_id)),
    )


def message_id(channel: str, account: str, provider_id: str) -> UUID:
    """Our id of the message: the same whenever, and by whichever way, the message comes in."""
    return uuid5(NAMESPACE_URL, f"eventbus:{channel}:{account}:{provider_id}")


def conversation_of(organization: str, user: str, channel: str, account: str, contact: str) -> UUID:
    """The id of the one conversation between an account and a contact."""
    return conversations.begin(organization, user, f"{channel}:{account}:{contact}")
