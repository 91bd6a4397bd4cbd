"""Web Push (RFC 8030, 8291, 8292): an encrypted message to each browser of a user, by way of its push service.

The browser's service worker gets `{"title", "message", "eventId"}`. Repeats of a push have the same topic, by which the
service replaces one that it has not handed over yet. A browser that is gone (404, 410) is forgotten.
"""

import uuid
from base64 import urlsafe_b64encode
from functools import partial

import orjson
from pywebpush import WebPusher, WebPushException  # type: ignore[import-untyped]  # it has no types

from eventbus import Context, Reject, RetryLater
from eventbus.contract.transaction import Row
from handlers.delivery.guard import GUARDED
from handlers.delivery.record import once
from handlers.notification import vapid
from handlers.notification.events import SendPush
from handlers.partners.calls import Declined, Unreachable
from handlers.partners.services import SERVICES
from handlers.subscription import store

TTL = 24 * 3_600  # seconds that a service keeps a push for a browser that is off
LONGEST = 3_000  # bytes of the message; services take 4,096 of the whole, encrypted
GONE = frozenset({404, 410})


async def send(event: SendPush, ctx: Context) -> None:
    """Push to all browsers of the user. Those that have it are on record, so that a retry only goes to the others."""
    vapid.key_of(await ctx.use(SERVICES))
    async with ctx.side_transaction() as tx:
        browsers = await store.of_user(tx.connection, event.organization_id, event.user_id)
    if not browsers:
        ctx.log.info("no push subscription", user_id=event.user_id)
    body = _body(event, ctx.event_id)
    later: list[Exception] = []
    refused: list[Reject] = []
    for browser in browsers:
        try:
            await once(ctx, "push", str(browser["id"]), partial(_send, ctx, browser, body))
        except Reject as error:
            if not await _forgotten(event, ctx, browser, error):
                refused.append(error)
        except (Unreachable, RetryLater) as error:
            later.append(error)
    if later or refused:
        raise [*later, *refused][0]


def _body(event: SendPush, event_id: str) -> bytes:
    message = event.message.encode()[:LONGEST].decode(errors="ignore")
    title = (event.title or "")[:200]
    return orjson.dumps({"title": title, "message": message, "eventId": event_id})


async def _send(ctx: Context, browser: Row, body: bytes) -> str | None:
    """The push service's address of the message, if it gives one."""
    services = await ctx.use(SERVICES)
    endpoint: str = browser["endpoint"]
    headers = {
        "Authorization": vapid.authorization(services, endpoint),
        "Content-Encoding": "aes128gcm",
        "Content-Type": "application/octet-stream",
        "TTL": str(TTL),
        "Topic": urlsafe_b64encode(uuid.UUID(ctx.event_id).bytes).decode().rstrip("="),
    }
    client = await ctx.use(GUARDED)
    answer = await client.post("the push service", endpoint, _encrypted(browser, body), headers)
    return answer.headers.get("Location")


def _encrypted(browser: Row, body: bytes) -> bytes:
    keys = {"p256dh": browser["p256dh"], "auth": browser["auth"]}
    try:
        sealed: bytes = WebPusher({"endpoint": browser["endpoint"], "keys": keys}).encode(body)["body"]
    except (WebPushException, ValueError) as error:
        raise Reject(f"the browser's keys cannot be used: {type(error).__name__}") from None
    return sealed


async def _forgotten(event: SendPush, ctx: Context, browser: Row, error: Reject) -> bool:
    """Whether the service says that the browser is gone; its subscription is deleted then."""
    if not isinstance(error, Declined) or error.answer.status not in GONE:
        return False
    async with ctx.side_transaction() as tx:
        await store.delete(tx.connection, event.organization_id, event.user_id, browser["id"])
    ctx.log.info("push subscription expired", subscription_id=str(browser["id"]), status=error.answer.status)
    return True
