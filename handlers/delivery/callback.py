"""Delivers to an address that the sender of the message named: a signed POST to `channelMetadata.callbackUrl`.

    {"type": "message.responded", "timestamp": "…", "data": {messageId, conversationId, message, metadata, …}}

signed by Standard Webhooks (handlers.partners.signing). `webhook-id` is the event's id and the body is the same each
time, so that a receiver who drops the ids that he has seen is told once, whatever died on our side.

The key: each organization's is derived from CALLBACK_SIGNING_SECRET, so that no organization can sign what another
would believe. Without that secret the key is N8N_SIGNING_SECRET itself: enough where one party runs all receivers.
"""

import base64
import hashlib
import hmac
from functools import partial

import orjson

from eventbus import Context, Reject
from handlers.delivery.guard import GUARDED
from handlers.delivery.record import once
from handlers.message.events import Channel, MessageResponded
from handlers.partners.services import SERVICES, Services
from handlers.partners.signing import PREFIX, key_of, sign


async def send(event: MessageResponded, ctx: Context) -> None:
    """Send it once, provided that the receiver drops repeats of a `webhook-id`."""
    await once(ctx, Channel.API, "0", partial(_send, event, ctx))


async def _send(event: MessageResponded, ctx: Context) -> None:
    url = event.channel_metadata.get("callbackUrl")
    if not isinstance(url, str) or not url:
        raise Reject("channelMetadata.callbackUrl is missing: where to call back")
    secret = _secret(await ctx.use(SERVICES), ctx.organization_id or "")
    body = orjson.dumps(
        {
            "type": event.event_type,
            "timestamp": ctx.envelope.time,
            "data": event.model_dump(
                mode="json", by_alias=True, exclude={"channel_metadata", "user_id"}, exclude_none=True
            ),
        }
    )
    headers = {"Content-Type": "application/json", "User-Agent": "eventbus", **sign(secret, ctx.event_id, body)}
    client = await ctx.use(GUARDED)
    await client.post("the callback", url, body, headers)


def _secret(services: Services, organization: str) -> str:
    """Raises Reject if none is configured: an unsigned call could be anybody's."""
    own = callback_secret(services, organization)
    if own is None and services.n8n_signing_secret is None:
        raise Reject("callbacks are not configured: set CALLBACK_SIGNING_SECRET")
    return own or services.require("callbacks", "n8n_signing_secret")[0]


def callback_secret(services: Services, organization: str) -> str | None:
    """The secret with which an organization's receivers check signatures; None without CALLBACK_SIGNING_SECRET."""
    if not services.callback_signing_secret:
        return None
    key = hmac.new(key_of(services.callback_signing_secret), f"callback:{organization}".encode(), hashlib.sha256)
    return PREFIX + base64.b64encode(key.digest()).decode()
