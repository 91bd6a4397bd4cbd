"""Delivers to Telegram, by the Bot API: POST {TELEGRAM_BASE_URL}/bot{TELEGRAM_BOT_TOKEN}/sendMessage.

The URL holds the token, so no error or log line of ours shows the URL. The API has no idempotency key.
"""

from functools import partial
from typing import Any

from eventbus import Context, Reject
from handlers.delivery.record import once
from handlers.delivery.texts import parts
from handlers.message.events import Channel, MessageResponded
from handlers.partners.calls import HTTP, Answer, call
from handlers.partners.services import SERVICES

LIMIT = 4_096  # characters of a text


async def send(event: MessageResponded, ctx: Context) -> None:
    """Send the answer to `channelMetadata.chatId`, in as many texts as it takes."""
    texts = parts(event.message, LIMIT)
    if not texts:
        raise Reject("there is no text to send to Telegram")
    for place, text in enumerate(texts):
        await once(ctx, Channel.TELEGRAM, str(place), partial(_send, ctx, event.channel_metadata.get("chatId"), text))


async def _send(ctx: Context, chat_id: Any, text: str) -> str | None:
    """The provider's id of the message."""
    services = await ctx.use(SERVICES)
    [token] = services.require("Telegram", "telegram_bot_token")
    if not isinstance(chat_id, str | int) or isinstance(chat_id, bool) or chat_id == "":
        raise Reject("channelMetadata.chatId is missing: whom to send to on Telegram")
    url = f"{services.telegram_base_url.rstrip('/')}/bot{token}/sendMessage"
    content = {"chat_id": chat_id, "text": text}
    return _id(await call(await ctx.use(HTTP), "Telegram", "POST", url, json=content, hide=token))


def _id(answer: Answer) -> str | None:
    """The message's id; None if the answer tells none. Telegram has taken the message either way."""
    match answer.content():
        case {"result": {"message_id": int(found)}}:
            return str(found)
    return None
