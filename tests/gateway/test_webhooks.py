"""/webhooks: who may call, what is taken in, and once for a provider's id."""

import asyncio
import hashlib
import hmac
from typing import Any

import orjson
import pytest
import structlog

from eventbus import EventBus
from gateway.endpoints.dispatch import MAX_BODY
from handlers.message import conversations
from handlers.partners.services import SERVICES, Services
from tests.gateway.client import Answer, Client, Gateway
from tests.gateway.conftest import Tables, told
from tests.gateway.test_connections import new_agent
from tests.gateway.test_problems import assert_problem

SECRETS = Services(
    whatsapp_app_secret="app secret",
    whatsapp_verify_token="verify token",
    telegram_bot_token="123456:token",
    telegram_webhook_secret="webhook secret",
)
WHATSAPP, TELEGRAM = "/webhooks/whatsapp", "/webhooks/telegram"


@pytest.fixture
def provider(bus: EventBus, gateway: Gateway) -> Client:
    """WhatsApp or Telegram: whoever has no token of ours."""
    bus.resources.provide(SERVICES, SECRETS)
    return gateway.bearer("")


@pytest.fixture
async def connections(admin: Client) -> str:
    """Of both kinds; the agent behind them."""
    agent = await new_agent(admin)
    for channel, account in (("whatsapp", "1066"), ("telegram", "123456")):
        made = await admin.post("/api/connections", {"channel": channel, "account": account, "agentId": agent})
        assert made.status == 201, made
    return agent


def said(text: str = "Hello", provider_id: str = "wamid.1", sender: str = "4930123") -> dict[str, Any]:
    return {"from": sender, "id": provider_id, "timestamp": "1767261600", "type": "text", "text": {"body": text}}


def payload(*messages: Any, account: str = "1066") -> dict[str, Any]:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001111", "phone_number_id": account},
        "contacts": [{"profile": {"name": "Lea"}, "wa_id": "4930123"}],
        "messages": list(messages),
    }
    changes = [{"value": value, "field": "messages"}]
    return {"object": "whatsapp_business_account", "entry": [{"id": "WABA", "changes": changes}]}


async def whatsapp(provider: Client, content: object, *, secret: str = "app secret") -> Answer:
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    digest = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    return await provider.send("POST", WHATSAPP, raw, headers={"X-Hub-Signature-256": f"sha256={digest}"})


def update(number: int = 7, text: Any = "Hello", chat: int = 42, **more: Any) -> dict[str, Any]:
    sender = {"id": 42, "is_bot": False, "first_name": "Lea"}
    message = {"message_id": number, "from": sender, "chat": {"id": chat, "type": "private"}, "date": 1767261600}
    return {"update_id": 1, "message": message | {"text": text} | more}


async def telegram(provider: Client, content: object, *, secret: str = "webhook secret") -> Answer:
    raw = content if isinstance(content, bytes) else orjson.dumps(content)
    return await provider.send("POST", TELEGRAM, raw, headers={"X-Telegram-Bot-Api-Secret-Token": secret})


async def _received(tables: Tables) -> list[dict[str, Any]]:
    return [told(event) for event in await tables.events("message.received")]


# Who may call ---------------------------------------------------------------------------------------------------------


async def test_the_challenge_is_answered(provider: Client, gateway: Gateway) -> None:
    query = "hub.mode=subscribe&hub.verify_token=verify%20token&hub.challenge=11%3Cb%3E"
    async with gateway.session.get(f"{gateway.url}{WHATSAPP}?{query}") as response:
        assert (response.status, await response.text()) == (200, "11<b>")
        assert response.content_type == "text/plain"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 403),
        ("hub.mode=subscribe&hub.challenge=1", 403),
        ("hub.mode=subscribe&hub.verify_token=&hub.challenge=1", 403),
        ("hub.mode=subscribe&hub.verify_token=verify&hub.challenge=1", 403),
        ("hub.mode=subscribe&hub.verify_token=%C3%A9%F0&hub.challenge=1", 403),
        ("hub.mode=unsubscribe&hub.verify_token=verify%20token&hub.challenge=1", 403),
        ("hub.mode=subscribe&hub.verify_token=verify%20token", 400),
        ("hub.mode=subscribe&hub.verify_token=verify%20token&hub.challenge=" + "1" * 1025, 400),
    ],
)
async def test_the_challenge_is_refused(query: str, status: int, provider: Client) -> None:
    assert_problem(await provider.get(f"{WHATSAPP}?{query}"), status, WHATSAPP)


GOOD_SIGNATURE = hmac.new(b"app secret", b"{}", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "sha256=",
        GOOD_SIGNATURE,
        f"sha1={GOOD_SIGNATURE}",
        f"sha256={GOOD_SIGNATURE.upper()}",
        f"sha256={GOOD_SIGNATURE}0",
        f"sha256={GOOD_SIGNATURE[:-1]}",
        "sha256=" + "é" * 64,
        f"sha256={hmac.new(b'', b'{}', hashlib.sha256).hexdigest()}",
    ],
)
async def test_what_whatsapp_has_not_signed_is_refused(signature: str | None, provider: Client, tables: Tables) -> None:
    headers = {} if signature is None else {"X-Hub-Signature-256": signature}
    assert_problem(await provider.send("POST", WHATSAPP, b"{}", headers=headers), 401, WHATSAPP)


async def test_the_signature_is_over_the_bytes(provider: Client, connections: str, tables: Tables) -> None:
    raw = orjson.dumps(payload(said()))
    digest = hmac.new(b"app secret", raw, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": f"sha256={digest}"}
    assert (await provider.send("POST", WHATSAPP, raw + b" ", headers=headers)).status == 401
    assert await _received(tables) == []
    assert (await provider.send("POST", WHATSAPP, raw, headers=headers)).status == 200
    assert len(await _received(tables)) == 1


@pytest.mark.parametrize("secret", ["", "webhook", "webhook secrets", "é"])
async def test_who_does_not_know_telegrams_secret_is_refused(
    secret: str, provider: Client, connections: str, tables: Tables
) -> None:
    assert_problem(await telegram(provider, update(), secret=secret + "x" * (not secret)), 401, TELEGRAM)
    assert (await provider.send("POST", TELEGRAM, orjson.dumps(update()))).status == 401
    assert await _received(tables) == []


async def test_a_webhook_that_is_not_configured_lets_nobody_in(
    bus: EventBus, gateway: Gateway, connections: str, tables: Tables
) -> None:
    """Not even who signs with the empty secret."""
    bus.resources.provide(SERVICES, Services(whatsapp_app_secret="", telegram_webhook_secret=""))
    provider = gateway.bearer("")
    with structlog.testing.capture_logs() as logged:
        assert (await whatsapp(provider, payload(said()), secret="")).status == 401
        assert (await telegram(provider, update(), secret="")).status == 401
        assert (await provider.get(f"{WHATSAPP}?hub.mode=subscribe&hub.challenge=1&hub.verify_token=")).status == 401
    assert await _received(tables) == []
    missing = [line["set"] for line in logged if "not configured" in line["event"]]
    assert missing == ["WHATSAPP_APP_SECRET", "TELEGRAM_WEBHOOK_SECRET", "WHATSAPP_VERIFY_TOKEN"]


# What is taken in -----------------------------------------------------------------------------------------------------


async def test_a_message_from_whatsapp_enters_the_flow(provider: Client, connections: str, tables: Tables) -> None:
    answer = await whatsapp(provider, payload(said("Where is my order?")))
    assert (answer.status, answer.body) == (200, {"received": 1})
    [event] = await tables.events("message.received")
    assert event["organization"] == "acme"
    data = told(event)
    conversation = conversations.begin("acme", "root", "whatsapp:1066:4930123")
    assert data == {
        "messageId": data["messageId"],
        "conversationId": str(conversation),
        "agentId": connections,
        "userId": "root",
        "channel": "whatsapp",
        "channelMetadata": {"to": "4930123"},
        "message": "Where is my order?",
    }
    [row] = await tables.fetch("SELECT organization, conversation_id, role, content FROM messages")
    assert tuple(row) == ("acme", conversation, "user", "Where is my order?")


async def test_a_message_from_telegram_enters_the_flow(provider: Client, connections: str, tables: Tables) -> None:
    assert (await telegram(provider, update(text="Where?", chat=-100))).status == 200
    [data] = await _received(tables)
    assert (data["channel"], data["channelMetadata"], data["message"]) == ("telegram", {"chatId": -100}, "Where?")
    assert data["conversationId"] == str(conversations.begin("acme", "root", "telegram:123456:-100"))


async def test_what_a_contact_says_is_one_conversation(provider: Client, connections: str, tables: Tables) -> None:
    await whatsapp(provider, payload(said("1", "a"), said("2", "b"), said("3", "c", sender="4930999")))
    first, second, other = await _received(tables)
    assert first["conversationId"] == second["conversationId"] != other["conversationId"]
    assert [one["message"] for one in (first, second, other)] == ["1", "2", "3"]


async def test_each_message_once_by_its_providers_id(provider: Client, connections: str, tables: Tables) -> None:
    """Repeated at once, in a payload, later, in other words."""
    answers = await asyncio.gather(
        *(whatsapp(provider, payload(said(), said())) for _ in range(5)),
        *(telegram(provider, update()) for _ in range(5)),
    )
    answers += [await whatsapp(provider, payload(said("Other words"))), await telegram(provider, update(text="Other"))]
    assert {answer.status for answer in answers} == {200}
    assert sorted(data["channel"] for data in await _received(tables)) == ["telegram", "whatsapp"]
    assert await tables.count("messages") == 2
    assert await tables.count("inbound_messages") == 2


async def test_it_is_once_although_connection_agent_and_owner_have_changed(
    admin: Client, gateway: Gateway, provider: Client, connections: str, tables: Tables
) -> None:
    await whatsapp(provider, payload(said()))
    await admin.delete(f"/api/agents/{connections}")
    successor = gateway.caller("otto", "acme", "admin")
    connection = {"channel": "whatsapp", "account": "1066", "agentId": await new_agent(successor)}
    assert (await successor.post("/api/connections", connection)).status == 201
    assert (await whatsapp(provider, payload(said(), said("Next", "wamid.2")))).status == 200
    assert [data["message"] for data in await _received(tables)] == ["Hello", "Next"]


async def test_the_same_id_of_another_chat_or_account_is_another_message(
    admin: Client, provider: Client, connections: str, tables: Tables
) -> None:
    connection = {"channel": "whatsapp", "account": "1067", "agentId": connections}
    assert (await admin.post("/api/connections", connection)).status == 201
    for account in ("1066", "1067"):
        await whatsapp(provider, payload(said(), account=account))
    for chat in (1, 2):
        await telegram(provider, update(chat=chat))
    assert len({data["messageId"] for data in await _received(tables)}) == 4


async def test_nobodys_message_is_left_in_the_log(provider: Client, connections: str, tables: Tables) -> None:
    with structlog.testing.capture_logs() as logged:
        assert (await whatsapp(provider, payload(said(), account="9"))).status == 200
    assert await _received(tables) == []
    assert await tables.count("inbound_messages") == 0
    assert any("nobody's message" in line["event"] and line["account"] == "9" for line in logged)


async def test_an_account_is_its_organizations(
    admin: Client, stranger: Client, provider: Client, tables: Tables
) -> None:
    connection = {"channel": "whatsapp", "account": "1066", "agentId": await new_agent(stranger)}
    assert (await stranger.post("/api/connections", connection)).status == 201
    await whatsapp(provider, payload(said()))
    [event] = await tables.events("message.received")
    assert (event["organization"], told(event)["userId"]) == ("umbrella", "eve")
    assert [row["organization"] for row in await tables.fetch("SELECT organization FROM messages")] == ["umbrella"]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "button", "button": {"text": "Yes", "payload": "y"}}, "Yes"),
        ({"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"title": "A"}}}, "A"),
        ({"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"title": "B"}}}, "B"),
        ({"type": "image", "image": {"id": "1", "caption": " Look "}}, "[image]\nLook"),
        ({"type": "audio", "audio": {"id": "1"}}, "[audio]"),
        ({"type": "location", "location": {"latitude": 1.0}}, "[location]"),
        ({"type": "contacts", "contacts": [{}]}, "[contacts]"),
        ({"text": {"body": "a\x00b\x1bc\nd"}}, "a b c\nd"),
        ({"text": {"body": "x" * 40_000}}, "x" * 32_000),
    ],
)
async def test_what_whatsapp_messages_say(
    message: dict[str, Any], text: str, provider: Client, connections: str, tables: Tables
) -> None:
    assert (await whatsapp(provider, payload(said() | message))).status == 200
    assert [data["message"] for data in await _received(tables)] == [text]


@pytest.mark.parametrize(
    "content",
    [
        payload(said() | {"type": "reaction", "reaction": {"emoji": "x"}}),
        payload(said() | {"type": "unsupported"}),
        payload(said() | {"type": "system"}),
        payload(said() | {"text": {"body": " \n"}}),
        payload(said() | {"text": None}),
        payload(said() | {"id": 5}),
        payload(said() | {"id": ""}),
        payload(said() | {"id": "a\0b"}),
        payload(said() | {"id": "x" * 3000}),
        payload(said(), account="1066\0"),
        payload(said() | {"from": None}),
        payload(said(sender="nobody's number")),
        payload(None, [], "x"),
        payload(),
        {"object": "whatsapp_business_account", "entry": [{"changes": [{"field": "statuses", "value": {}}]}]},
        {"entry": [{"changes": [{"field": "messages", "value": {"statuses": [{"id": "wamid.1", "status": "read"}]}}]}]},
        {"entry": [None, {}, {"changes": None}, {"changes": [None, {"field": "messages", "value": 5}]}]},
        {"entry": {}},
        [],
        5,
        None,
    ],
)
async def test_what_whatsapp_says_beside_messages_is_left_out(
    content: object, provider: Client, connections: str, tables: Tables
) -> None:
    assert (await whatsapp(provider, content)).status == 200
    assert await _received(tables) == []


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"text": None, "photo": [{}], "caption": "Look"}, "[photo]\nLook"),
        ({"text": None, "voice": {}}, "[voice]"),
        ({"text": "a\x00b"}, "a b"),
    ],
)
async def test_what_telegram_messages_say(
    message: dict[str, Any], text: str, provider: Client, connections: str, tables: Tables
) -> None:
    assert (await telegram(provider, update(**message))).status == 200
    assert [data["message"] for data in await _received(tables)] == [text]


@pytest.mark.parametrize(
    "content",
    [
        {"update_id": 1, "edited_message": update()["message"]},
        {"update_id": 1, "channel_post": update()["message"]},
        {"update_id": 1, "callback_query": {"id": "1", "message": update()["message"]}},
        {"message": update()["message"] | {"from": {"id": 1, "is_bot": True}}},
        update(text="  "),
        update(text=None, new_chat_members=[{}]),
        {"update_id": 1, "message": {"message_id": 1, "text": "no chat"}},
        {"message": {"message_id": "1", "chat": {"id": 1}, "text": "x"}},
        {"message": None},
        {},
        [],
        "x",
    ],
)
async def test_what_telegram_says_beside_messages_is_left_out(
    content: object, provider: Client, connections: str, tables: Tables
) -> None:
    assert (await telegram(provider, content)).status == 200
    assert await _received(tables) == []


async def test_one_that_is_not_understood_keeps_no_other_back(
    provider: Client, connections: str, tables: Tables
) -> None:
    messages = [said("1", "a"), said("2", "b", sender="x"), None, said("3", "c")]
    assert (await whatsapp(provider, payload(*messages))).status == 200
    assert [data["message"] for data in await _received(tables)] == ["1", "3"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"a": NaN}', b'{"entry": "\\ud800"}', b"[" * 10_000])
async def test_what_is_signed_and_no_json_is_400(raw: bytes, provider: Client) -> None:
    assert_problem(await whatsapp(provider, raw), 400, WHATSAPP)
    assert_problem(await telegram(provider, raw), 400, TELEGRAM)


async def test_a_body_has_a_bound(provider: Client) -> None:
    assert_problem(await whatsapp(provider, b" " * (MAX_BODY + 1)), 413, WHATSAPP)
    assert_problem(await telegram(provider, b" " * (MAX_BODY + 1)), 413, TELEGRAM)


async def test_many_messages_at_once(provider: Client, connections: str, tables: Tables) -> None:
    assert (await whatsapp(provider, payload(*(said(str(n), f"wamid.{n}") for n in range(120))))).status == 200
    assert [data["message"] for data in await _received(tables)] == [str(n) for n in range(120)]


async def test_other_methods_are_refused(provider: Client) -> None:
    assert (await provider.get(TELEGRAM)).status == 405
    assert (await provider.delete(WHATSAPP)).status == 405
