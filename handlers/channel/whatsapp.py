"""What the WhatsApp Cloud API posts to a webhook: {entry: [{changes: [{field, value: {metadata, messages, …}}]}]}.

Texts, and what a button or a list entry says, are taken as they are. Of media we say what it is, `[image]`, with the
caption below it: an agent can then ask for words. Reactions, statuses of what we have sent, and all that later versions
of the API may add, are left out.
"""

from collections.abc import Iterator
from typing import Any

from handlers.channel.inbound import Inbound
from handlers.message.events import Channel

MEDIA = frozenset({"image", "video", "audio", "voice", "document", "sticker", "location", "contacts"})


def messages(content: object) -> list[Inbound]:
    """The messages of a call, in its order; none if the content has another shape."""
    return [message for change in _changes(content) for message in _messages(change)]


def _changes(content: object) -> Iterator[dict[str, Any]]:
    for entry in _list(content, "entry"):
        for change in _list(entry, "changes"):
            if isinstance(change, dict) and change.get("field") == "messages" and isinstance(change.get("value"), dict):
                yield change["value"]


def _messages(value: dict[str, Any]) -> Iterator[Inbound]:
    match value:
        case {"metadata": {"phone_number_id": str(account)}}:
            for message in _list(value, "messages"):
                match message:
                    case {"id": str(provider_id), "from": str(sender)} if provider_id and (text := text_of(message)):
                        yield Inbound(Channel.WHATSAPP, account, provider_id, sender, {"to": sender}, text)


def text_of(message: object) -> str | None:
    """What a message says in words; None if it says nothing that an agent could answer."""
    match message:
        case {"type": "text", "text": {"body": str(text)}}:
            return text.strip() or None
        case {"type": "button", "button": {"text": str(text)}}:
            return text.strip() or None
        case {"type": "interactive", "interactive": {"button_reply": {"title": str(text)}}}:
            return text.strip() or None
        case {"type": "interactive", "interactive": {"list_reply": {"title": str(text)}}}:
            return text.strip() or None
        case {"type": str(kind)} if kind in MEDIA:
            media = message.get(kind) if isinstance(message, dict) else None
            caption = media.get("caption") if isinstance(media, dict) else None
            return f"[{kind}]\n{caption.strip()}".strip() if isinstance(caption, str) else f"[{kind}]"
    return None


def _list(content: object, name: str) -> list[Any]:
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, list) else []
