"""What Telegram posts to a webhook: an update, of which only a new message says something to us.

A text is taken as it is; of media we say what it is, `[photo]`, with the caption below it. Edits, posts in channels,
reactions, button presses, who has joined a group, and what other bots say, are left out.

The id of a message is unique within its chat alone, and update ids begin anew after a quiet week: a message is known by
chat and id.
"""

from typing import Any

from handlers.channel.inbound import Inbound
from handlers.message.events import Channel

MEDIA = ("photo", "video", "voice", "audio", "document", "sticker", "animation", "video_note", "location", "contact")


def messages(content: object, account: str) -> list[Inbound]:
    """The message of an update, if there is one. `account`: the id of our bot; updates do not tell it."""
    match content:
        case {"message": {"message_id": int(number), "chat": {"id": int(chat)}, **rest}} if text := _text_of(rest):
            return [Inbound(Channel.TELEGRAM, account, f"{chat}:{number}", str(chat), {"chatId": chat}, text)]
    return []


def account_of(token: str) -> str:
    """The bot's id: what its token begins with."""
    return token.partition(":")[0]


def _text_of(message: Any) -> str | None:
    match message:
        case {"from": {"is_bot": True}}:
            return None
        case {"text": str(text)}:
            return text.strip() or None
    kind = next((kind for kind in MEDIA if kind in message), None)
    if kind is None:
        return None
    caption = message.get("caption")
    return f"[{kind}]\n{caption.strip()}".strip() if isinstance(caption, str) else f"[{kind}]"
