"""SMS, by Twilio's API: POST {SMS_BASE_URL}/2010-04-01/Accounts/{SMS_ACCOUNT_SID}/Messages.json, form-encoded.

The API has no idempotency key: see handlers.delivery.record for what that means.
"""

from functools import partial
from urllib.parse import urlencode

import aiohttp

from eventbus import Context, Reject
from handlers.delivery.record import once
from handlers.delivery.texts import parts
from handlers.notification.events import SendSms
from handlers.partners.calls import HTTP, Declined, call
from handlers.partners.services import SERVICES

LIMIT = 1_600  # characters; Twilio makes as many segments of it as the network wants
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def send(event: SendSms, ctx: Context) -> None:
    """Send to the event's `to`: users have no phone number here that could stand in for it."""
    texts = parts(f"{event.title or ''}\n{event.message}", LIMIT)
    if not texts:
        raise Reject("there is no text to send by SMS")
    for place, text in enumerate(texts):
        await once(ctx, "sms", str(place), partial(_send, ctx, event.to, text))


async def _send(ctx: Context, to: str | None, text: str) -> str | None:
    """The provider's id of the message."""
    services = await ctx.use(SERVICES)
    account, token, sender = services.require("SMS", "sms_account_sid", "sms_auth_token", "sms_from")
    if not to:
        raise Reject("`to` is missing: the number to send the SMS to")
    url = f"{services.sms_base_url.rstrip('/')}/2010-04-01/Accounts/{account}/Messages.json"
    body = urlencode({"To": to, "From": sender, "Body": text}).encode()
    headers = {**FORM, "Authorization": aiohttp.encode_basic_auth(account, token)}
    try:
        answer = await call(await ctx.use(HTTP), "the SMS service", "POST", url, body=body, headers=headers, hide=token)
    except Declined as declined:
        match declined.answer.content():
            case {"code": int(code), "message": str(message)}:
                raise Reject(f"the SMS service refused: {message.replace(token, '***')} ({code})") from None
        raise
    match answer.content():
        case {"sid": str(found)}:
            return found
    return None
