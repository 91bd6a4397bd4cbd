"""The history that WhatsApp offers for an account, in pages, the oldest first:

    GET {WHATSAPP_BASE_URL}/{account}/message_history?limit=100[&after=CURSOR]
    {"data": [{"id", "from", "to", "timestamp": seconds since epoch, "type": "text", "text": {"body"}}, …],
     "paging": {"cursors": {"after": CURSOR}}}

Without `paging.cursors.after` a page is the last one. Messages are of the kinds that webhooks bring.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import ClientSession
from yarl import URL

from handlers.channel.whatsapp import text_of
from handlers.common.fields import without_control
from handlers.partners.calls import Unreachable, call
from handlers.partners.services import Services

PAGE = 100  # messages


class Past(NamedTuple):
    """A message of the history. `contact`: the other side; `inbound`: whether the contact said it."""

    provider_id: str
    contact: str
    inbound: bool
    text: str
    at: datetime


class HistoryPage(NamedTuple):
    """`after`: where the next page begins; None: there is none."""

    messages: list[Past]
    after: str | None


async def fetch(session: ClientSession, services: Services, account: str, cursor: str | None) -> HistoryPage:
    """Raises as handlers.partners.calls.call, and Unreachable for an answer of another shape."""
    [token] = services.require("WhatsApp", "whatsapp_access_token")
    url = URL(services.whatsapp_base_url.rstrip("/")) / account / "message_history" % {"limit": PAGE}
    if cursor is not None:
        url %= {"after": cursor}
    headers = {"Authorization": f"Bearer {token}"}
    answer = await call(session, "WhatsApp's history", "GET", url, headers=headers, hide=token)
    content = answer.json()
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise Unreachable("WhatsApp's history: the answer has no list of data")
    return HistoryPage(list(_messages(content["data"], account)), _after(content))


def _after(content: dict[str, Any]) -> str | None:
    match content:
        case {"paging": {"cursors": {"after": str(after)}}} if after:
            return after
    return None


def _messages(found: list[Any], account: str) -> Iterator[Past]:
    """The messages that have a text, a time and both sides; others are left out."""
    for message in found:
        match message:
            case {"id": str(provider_id), "from": str(sender), "to": str(to), "timestamp": str() | int() as when}:
                at, text = _moment(when), text_of(message)
                if at is not None and text is not None:
                    inbound = to == account
                    yield Past(provider_id, sender if inbound else to, inbound, without_control(text), at)


def _moment(seconds: str | int) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
