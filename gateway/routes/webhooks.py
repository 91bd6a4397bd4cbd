"""/webhooks: what WhatsApp and Telegram tell us. No token: they sign, or send a secret.

The answer is 200 once the messages are committed, which takes milliseconds. A provider that gets any other answer sends
them again later. The endpoints are raw: a signature is over the bytes of the body, and each provider has its own rules.
"""

import hashlib
import hmac

import orjson
from aiohttp import web
from pydantic import Field, JsonValue

from eventbus import Origin
from eventbus.process.safe_logging import get_logger
from gateway.endpoints.api import JSON, Routes
from gateway.endpoints.dispatch import BUS, DEADLINE
from gateway.http.bodies import read
from gateway.http.correlation import correlation_id
from gateway.http.problems import Problem
from handlers.channel import telegram, whatsapp
from handlers.channel.inbound import Inbound, take_in
from handlers.common.deadline import within
from handlers.common.fields import Answer, Query
from handlers.partners.services import SERVICES, Services

LONGEST_CHALLENGE = 1_024  # characters

log = get_logger("gateway.webhooks")

webhooks = Routes("/webhooks")


class TakenIn(Answer):
    """`received`: how many messages there were; those that had come before are among them."""

    received: int


class Challenge(Query):
    mode: str = Field(default="", alias="hub.mode")
    verify_token: str = Field(default="", alias="hub.verify_token")
    challenge: str = Field(default="", alias="hub.challenge")


@webhooks.raw("GET", "/whatsapp", answers={200: {"text/plain": str}}, token=False, problems={400, 401, 403})
async def subscribe_whatsapp(request: web.Request, query: Challenge) -> web.Response:
    """Answer the challenge with which WhatsApp checks that the webhook is ours."""
    services = await request.app[BUS].resources.use(SERVICES)
    expected = _configured(services.whatsapp_verify_token, "WHATSAPP_VERIFY_TOKEN")
    if query.mode != "subscribe" or not _same(query.verify_token, expected):
        raise Problem(403, "the verify token is another one")
    if not 0 < len(query.challenge) <= LONGEST_CHALLENGE:
        raise Problem(400, f"hub.challenge must have 1 to {LONGEST_CHALLENGE} characters")
    return web.Response(text=query.challenge, headers={"X-Content-Type-Options": "nosniff"})


@webhooks.raw(
    "POST",
    "/whatsapp",
    takes={JSON: JsonValue},
    answers={200: {JSON: TakenIn}},
    headers={"X-Hub-Signature-256": str},
    token=False,
    problems={401, 503},
)
async def receive_whatsapp(request: web.Request) -> web.Response:
    """Take in what was said on WhatsApp."""
    services = await request.app[BUS].resources.use(SERVICES)
    secret = _configured(services.whatsapp_app_secret, "WHATSAPP_APP_SECRET")
    raw = await read(request)
    expected = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    if not _same(request.headers.get("X-Hub-Signature-256", ""), expected):
        raise Problem(401, "the signature in X-Hub-Signature-256 is not that of this body")
    return await _take_in(request, whatsapp.messages(_parse(raw)))


@webhooks.raw(
    "POST",
    "/telegram",
    takes={JSON: JsonValue},
    answers={200: {JSON: TakenIn}},
    headers={"X-Telegram-Bot-Api-Secret-Token": str},
    token=False,
    problems={401, 503},
)
async def receive_telegram(request: web.Request) -> web.Response:
    """Take in what was said on Telegram."""
    services = await request.app[BUS].resources.use(SERVICES)
    secret = _configured(services.telegram_webhook_secret, "TELEGRAM_WEBHOOK_SECRET")
    if not _same(request.headers.get("X-Telegram-Bot-Api-Secret-Token", ""), secret):
        raise Problem(401, "the secret in X-Telegram-Bot-Api-Secret-Token is another one")
    content = _parse(await read(request))
    return await _take_in(request, telegram.messages(content, _bot(services)))


async def _take_in(request: web.Request, messages: list[Inbound]) -> web.Response:
    origin = Origin(correlation_id=correlation_id(request))
    await within(DEADLINE, take_in(request.app[BUS], origin, messages))
    answer = TakenIn(received=len(messages))
    return web.Response(text=answer.model_dump_json(by_alias=True), content_type=JSON)


def _configured(secret: str | None, variable: str) -> str:
    """The secret. Raises Problem(401) if there is none: then nobody can prove who he is."""
    if not secret:
        log.warning("a webhook is called that is not configured", set=variable)
        raise Problem(401, "this webhook is not configured")
    return secret


def _bot(services: Services) -> str:
    return telegram.account_of(services.telegram_bot_token or "")


def _same(given: str, expected: str) -> bool:
    """Whether they are equal, found in a time that does not tell where they differ. Headers may hold any bytes."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())


def _parse(raw: bytes) -> object:
    """The body as JSON. Raises Problem(400) for anything else: whoever signs such a thing should look at it."""
    try:
        content: object = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is no JSON: {error}") from None
    return content
