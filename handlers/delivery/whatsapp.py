"""Delivers to WhatsApp, by the Cloud API: POST {WHATSAPP_BASE_URL}/{account}/messages.

`account` is the connected account through which the question came, which the conversation's id tells; otherwise it is
WHATSAPP_PHONE_NUMBER_ID. The API has no idempotency key. It reports throttling as a 400 with a code of its own; such a
call is tried again.
"""

from functools import partial

from eventbus import Context, Reject
from handlers.channel import store as channels
from handlers.channel.inbound import conversation_of
from handlers.delivery.record import once
from handlers.delivery.texts import parts
from handlers.message.events import Channel, MessageResponded
from handlers.partners.calls import HTTP, Answer, Declined, Unreachable, call
from handlers.partners.services import SERVICES

LIMIT = 4_096  # characters of a text
THROTTLED = frozenset({4, 80007, 130429, 131048, 131056})  # error codes: too many calls, of various kinds


async def send(event: MessageResponded, ctx: Context) -> None:
    """Send the answer to `channelMetadata.to`, in as many texts as it takes."""
    texts = parts(event.message, LIMIT)
    if not texts:
        raise Reject("there is no text to send to WhatsApp")
    to = event.channel_metadata.get("to")
    if not isinstance(to, str) or not to:
        raise Reject("channelMetadata.to is missing: whom to send to on WhatsApp")
    account = await _account(event, ctx, to)
    for place, text in enumerate(texts):
        await once(ctx, Channel.WHATSAPP, str(place), partial(_send, ctx, account, to, text))


async def _account(event: MessageResponded, ctx: Context, to: str) -> str | None:
    """The organization's account through which the question came; None if it came through none of them."""
    organization, user = ctx.organization_id or "", event.user_id or ""
    async with ctx.side_transaction() as tx:
        accounts = await channels.accounts(tx.connection, organization, Channel.WHATSAPP)
    talks = {str(conversation_of(organization, user, Channel.WHATSAPP, account, to)): account for account in accounts}
    return talks.get(event.conversation_id)


async def _send(ctx: Context, account: str | None, to: str, text: str) -> str | None:
    """The provider's id of the message."""
    services = await ctx.use(SERVICES)
    if account is None:
        account, token = services.require("WhatsApp", "whatsapp_phone_number_id", "whatsapp_access_token")
    else:
        [token] = services.require("WhatsApp", "whatsapp_access_token")
    content = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": to,
        "type": "text",
        "text": {"body": text},
    }
    url = f"{services.whatsapp_base_url.rstrip('/')}/{account}/messages"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = await call(await ctx.use(HTTP), "WhatsApp", "POST", url, json=content, headers=headers, hide=token)
    except Declined as declined:
        if _code(declined.answer) in THROTTLED:
            raise Unreachable(str(declined)) from None
        raise
    return _id(answer)


def _id(answer: Answer) -> str | None:
    """The message's id; None if the answer tells none. WhatsApp has taken the message either way."""
    match answer.content():
        case {"messages": [{"id": str(found)}, *_]}:
            return found
    return None


def _code(answer: Answer) -> int | None:
    match answer.content():
        case {"error": {"code": int(code)}}:
            return code
    return None
