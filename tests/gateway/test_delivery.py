"""Group `delivery`: answers reach their channel, once for each success on record."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from eventbus import EventBus
from eventbus.event import uuid7
from handlers.channel.inbound import conversation_of
from handlers.delivery.callback import callback_secret
from handlers.delivery.handlers import delivery
from handlers.message.events import Channel, MessageResponded
from handlers.partners.services import SERVICES, Services
from handlers.partners.signing import key_of
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.gateway.peer import Peer, Received, answer, peer
from tests.gateway.test_connections import new_agent
from tests.proxy import Proxy
from tests.waiting import eventually
from tests.working import working

TOKEN = "123456:AAHsecret-of-the-bot"
WHATSAPP_TOKEN = "EAAGsecret"


@pytest.fixture
async def outside() -> AsyncIterator[Peer]:
    async with peer() as listening:
        yield listening


def _services(url: str, **changes: Any) -> Services:
    values: dict[str, Any] = {
        "whatsapp_base_url": f"{url}/v21.0",
        "whatsapp_phone_number_id": "1066",
        "whatsapp_access_token": WHATSAPP_TOKEN,
        "telegram_base_url": url,
        "telegram_bot_token": TOKEN,
        "callback_signing_secret": "the root of all callbacks",
        "callback_allow": url.removeprefix("http://"),
    }
    return Services(**(values | changes))


@pytest.fixture
async def at_work(bus: EventBus, outside: Peer) -> AsyncIterator[None]:
    bus.resources.provide(SERVICES, _services(outside.url))
    async with working(bus, delivery):
        yield


def _responded(channel: Channel, where: dict[str, Any], message: str = "Hello", **more: Any) -> MessageResponded:
    return MessageResponded(
        message_id=uuid7(),
        conversation_id=uuid7(),
        channel=channel,
        channel_metadata=where,
        message=message,
        **more,
    )


WHATSAPP = _responded(Channel.WHATSAPP, {"to": "4930123"})
TELEGRAM = _responded(Channel.TELEGRAM, {"chatId": 42})


async def _publish(bus: EventBus, event: MessageResponded) -> str:
    return (await bus.publish(event, organization="acme")).id


class Rows:
    """The deliveries of an event."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def of(self, event_id: str) -> list[Any]:
        return await self._tables.fetch("SELECT * FROM deliveries WHERE event_id = $1 ORDER BY part", event_id)

    async def until(self, event_id: str, *states: str) -> list[Any]:
        async def there() -> list[Any] | None:
            rows = await self.of(event_id)
            return rows if [row["state"] for row in rows] == list(states) else None

        return await eventually(there) or []


@pytest.fixture
def rows(tables: Tables) -> Rows:
    return Rows(tables)


async def _dead(bus: EventBus) -> list[str]:
    async def there() -> list[str]:
        return [letter.error or "" for letter in await bus.transport.dead_letters("message")]

    return await eventually(there)


async def test_whatsapp(bus: EventBus, outside: Peer, rows: Rows, at_work: None) -> None:
    outside.answers = [answer(200, {"messages": [{"id": "wamid.1\0"}]})]
    event_id = await _publish(bus, WHATSAPP)
    [row] = await rows.until(event_id, "sent")
    [sent] = outside.received
    assert (sent.method, sent.path) == ("POST", "/v21.0/1066/messages")
    assert sent.headers["Authorization"] == f"Bearer {WHATSAPP_TOKEN}"
    assert sent.json == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "4930123",
        "type": "text",
        "text": {"body": "Hello"},
    }
    assert (row["organization"], row["channel"], row["provider_id"]) == ("acme", "whatsapp", "wamid.1 ")
    assert (row["attempts"], row["unanswered"], row["error"], row["sent_at"] is None) == (1, 0, None, False)


@pytest.mark.usefixtures("at_work")
async def test_an_answer_leaves_through_the_account_that_the_question_came_in_by(
    bus: EventBus, outside: Peer, rows: Rows, admin: Client, stranger: Client
) -> None:
    for caller, account in ((admin, "1067"), (admin, "1068"), (stranger, "1069")):
        connection = {"channel": "whatsapp", "account": account, "agentId": await new_agent(caller)}
        assert (await caller.post("/api/connections", connection)).status == 201
    for account, expected in (("1067", "1067"), ("1068", "1068"), ("1069", "1066"), ("none", "1066")):
        talk = str(conversation_of("acme", "root", "whatsapp", account, "4930123"))
        event = WHATSAPP.model_copy(update={"conversation_id": talk, "user_id": "root"})
        await rows.until(await _publish(bus, event), "sent")
        assert outside.received[-1].path == f"/v21.0/{expected}/messages"


async def test_telegram_takes_long_texts_in_parts(bus: EventBus, outside: Peer, rows: Rows, at_work: None) -> None:
    outside.answers = [answer(200, {"ok": True, "result": {"message_id": number}}) for number in (7, 8)]
    event_id = await _publish(bus, _responded(Channel.TELEGRAM, {"chatId": "42"}, "a" * 4096 + "b" * 10))
    found = await rows.until(event_id, "sent", "sent")
    assert [sent.path for sent in outside.received] == [f"/bot{TOKEN}/sendMessage"] * 2
    assert [sent.json for sent in outside.received] == [
        {"chat_id": "42", "text": "a" * 4096},
        {"chat_id": "42", "text": "b" * 10},
    ]
    assert [row["provider_id"] for row in found] == ["7", "8"]


async def test_a_callback_is_signed_with_the_organizations_own_key(
    bus: EventBus, outside: Peer, rows: Rows, at_work: None
) -> None:
    event = _responded(Channel.API, {"callbackUrl": f"{outside.url}/hook?x=1"}, metadata={"model": "m"}, user_id="ann")
    event_id = await _publish(bus, event)
    await rows.until(event_id, "sent")
    [sent] = outside.received
    assert (sent.method, sent.path, sent.headers["Content-Type"]) == ("POST", "/hook?x=1", "application/json")
    assert sent.headers["webhook-id"] == event_id
    assert _is_signed(sent, callback_secret(_services(outside.url), "acme") or "")
    assert not _is_signed(sent, callback_secret(_services(outside.url), "umbrella") or "")
    assert sent.json["type"] == "message.responded"
    assert sent.json["timestamp"].endswith("+00:00")
    assert sent.json["data"] == {
        "messageId": event.message_id,
        "conversationId": event.conversation_id,
        "channel": "api",
        "message": "Hello",
        "metadata": {"model": "m"},
    }


async def test_admins_are_told_their_organizations_key(
    bus: EventBus, admin: Client, stranger: Client, ann: Client
) -> None:
    bus.resources.provide(SERVICES, _services("http://127.0.0.1:1"))
    keys = [(await caller.get("/api/callback-secret")).body["secret"] for caller in (admin, stranger)]
    assert keys == [callback_secret(_services(""), name) for name in ("acme", "umbrella")]
    assert len(set(keys)) == 2
    assert keys[0].startswith("whsec_")
    assert (await ann.get("/api/callback-secret")).status == 403


async def test_the_workflows_secret_signs_where_there_is_no_other_and_is_told_to_nobody(
    bus: EventBus, outside: Peer, rows: Rows, admin: Client
) -> None:
    bus.resources.provide(
        SERVICES, _services(outside.url, callback_signing_secret=None, n8n_signing_secret="of the workflow")
    )
    assert (await admin.get("/api/callback-secret")).status == 404
    async with working(bus, delivery):
        await rows.until(await _publish(bus, _responded(Channel.API, {"callbackUrl": outside.url})), "sent")
    assert _is_signed(outside.received[0], "of the workflow")


def _is_signed(sent: Received, secret: str) -> bool:
    """As a receiver checks it."""
    signed = f"{sent.headers['webhook-id']}.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    digest = base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()
    return sent.headers["webhook-signature"] == f"v1,{digest}"


async def test_a_callback_into_the_house_is_a_dead_letter_at_once(bus: EventBus, outside: Peer, rows: Rows) -> None:
    bus.resources.provide(SERVICES, _services(outside.url, callback_allow="", n8n_signing_secret="s"))
    async with working(bus, delivery):
        event_id = await _publish(bus, _responded(Channel.API, {"callbackUrl": outside.url}))
        [row] = await rows.until(event_id, "failed")
        assert "127.0.0.1 is no address of the public internet" in row["error"]
        assert "127.0.0.1 is no address of the public internet" in (await _dead(bus))[0]
    assert outside.received == []


@pytest.mark.parametrize(
    ("event", "missing"),
    [
        (WHATSAPP, "WhatsApp is not configured: set WHATSAPP_PHONE_NUMBER_ID and WHATSAPP_ACCESS_TOKEN"),
        (TELEGRAM, "Telegram is not configured: set TELEGRAM_BOT_TOKEN"),
        (_responded(Channel.API, {"callbackUrl": "https://example.com"}), "set CALLBACK_SIGNING_SECRET"),
    ],
)
async def test_a_channel_that_is_not_configured_says_what_to_set(
    event: MessageResponded, missing: str, bus: EventBus, rows: Rows
) -> None:
    bus.resources.provide(SERVICES, Services())
    async with working(bus, delivery):
        event_id = await _publish(bus, event)
        [row] = await rows.until(event_id, "failed")
        assert missing in row["error"]
        assert missing in (await _dead(bus))[0]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (_responded(Channel.WHATSAPP, {"to": 49}), "channelMetadata.to is missing"),
        (_responded(Channel.TELEGRAM, {"chatId": True}), "channelMetadata.chatId is missing"),
        (_responded(Channel.API, {"callbackUrl": 5}), "channelMetadata.callbackUrl is missing"),
        (_responded(Channel.WHATSAPP, {"to": "1"}, " \n"), "there is no text to send"),
        (_responded(Channel.TELEGRAM, {"chatId": 1}, ""), "there is no text to send"),
    ],
)
async def test_what_cannot_be_addressed_is_a_dead_letter(
    event: MessageResponded, reason: str, bus: EventBus, outside: Peer, at_work: None
) -> None:
    await _publish(bus, event)
    assert reason in (await _dead(bus))[0]
    assert outside.received == []


async def test_a_refusal_is_a_dead_letter_at_once_and_repeats_no_token(
    bus: EventBus, outside: Peer, rows: Rows, at_work: None
) -> None:
    outside.answers = [answer(400, {"description": f"chat not found in /bot{TOKEN}/sendMessage"})]
    with structlog.testing.capture_logs() as logged:
        event_id = await _publish(bus, TELEGRAM)
        [row] = await rows.until(event_id, "failed")
        [dead] = await _dead(bus)
    assert row["error"].startswith("Telegram answered 400: ")
    assert "chat not found in /bot***/sendMessage" in dead
    assert TOKEN not in str([row["error"], dead, logged])
    assert (len(outside.received), row["attempts"]) == (1, 1)


async def test_a_service_that_is_away_is_tried_again_and_the_token_is_in_no_message(bus: EventBus, rows: Rows) -> None:
    bus.resources.provide(SERVICES, _services("http://127.0.0.1:1"))
    with structlog.testing.capture_logs() as logged:
        async with working(bus, delivery):
            event_id = await _publish(bus, TELEGRAM)
            [row] = await rows.until(event_id, "failed")
            await eventually(lambda: _logged(logged, "failed, will retry"))
    assert row["error"] == "Telegram is away: ClientConnectorError"
    assert TOKEN not in str(logged)


async def _logged(lines: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in lines)


async def test_who_is_throttled_comes_back_when_told_to(
    bus: EventBus, outside: Peer, rows: Rows, at_work: None
) -> None:
    outside.answers = [answer(429, {"ok": False}, Retry_After="0.2"), answer(200, {"result": {"message_id": 9}})]
    event_id = await _publish(bus, TELEGRAM)
    [row] = await rows.until(event_id, "sent")
    assert (len(outside.received), row["attempts"], row["unanswered"], row["error"]) == (2, 2, 0, None)


async def test_whatsapp_says_429_with_a_400(bus: EventBus, outside: Peer, rows: Rows, at_work: None) -> None:
    outside.answers = [answer(400, {"error": {"code": 130429, "message": "Rate limit hit"}})]
    event_id = await _publish(bus, WHATSAPP)
    [row] = await rows.until(event_id, "failed")
    assert "Rate limit hit" in row["error"]
    [row] = await rows.until(event_id, "sent")
    assert (row["attempts"], row["unanswered"]) == (2, 0)


@pytest.mark.parametrize("broken", ["an error that may be behind the effect", "no answer at all"])
async def test_an_attempt_whose_end_nobody_knows_makes_the_delivery_ambiguous(
    broken: str, bus: EventBus, outside: Peer, rows: Rows, at_work: None
) -> None:
    async def hang_up(_received: Received) -> None:
        return

    outside.answers = [answer(502) if "error" in broken else hang_up]
    event_id = await _publish(bus, TELEGRAM)
    await outside.until_received(2)
    [row] = await eventually(lambda: _confirmed(rows, event_id))
    assert (row["state"], row["attempts"], row["unanswered"], row["error"]) == ("ambiguous", 2, 1, None)


async def _confirmed(rows: Rows, event_id: str) -> list[Any]:
    return [row for row in await rows.of(event_id) if row["sent_at"] is not None]


async def test_of_a_message_in_parts_only_what_is_missing_is_sent_again(
    bus: EventBus, outside: Peer, rows: Rows, at_work: None
) -> None:
    fine = answer(200, {"messages": [{"id": "1"}]})
    outside.answers = [fine, answer(503, None, Retry_After="0")]
    text = "\n".join(["a" * 4000, "b" * 4000, "c" * 100])
    event_id = await _publish(bus, _responded(Channel.WHATSAPP, {"to": "1"}, text))
    await rows.until(event_id, "sent", "sent", "sent")
    assert [sent.json["text"]["body"][0] for sent in outside.received] == ["a", "b", "b", "c"]


async def test_what_is_recorded_as_sent_is_not_sent_when_the_event_comes_again(
    bus: EventBus, outside: Peer, rows: Rows, at_work: None, tables: Tables
) -> None:
    """The relay may append an event twice, and an operator may replay one."""
    async with bus.transaction() as tx:
        event_id = await tx.publish(TELEGRAM, organization="acme")
        last = await tx.publish(WHATSAPP, organization="acme")
    await rows.until(event_id, "sent")
    await rows.until(last, "sent")

    async def marked() -> bool:
        return not await tables.fetch("SELECT 1 FROM eventbus_outbox WHERE published_at IS NULL")

    await eventually(marked)  # else the relay marks them after us
    await tables.execute("UPDATE eventbus_outbox SET published_at = NULL")
    with structlog.testing.capture_logs() as logged:
        await eventually(lambda: _logged(logged, "sent already"))
    assert len([sent for sent in outside.received if "/bot" in sent.path]) == 1


async def test_an_attempt_that_was_overtaken_writes_nothing(
    bus: EventBus, outside: Peer, rows: Rows, tables: Tables
) -> None:
    """A worker was frozen inside the call for longer than its lease: somebody else has sent it meanwhile."""

    async def overtake(_received: Received) -> Any:
        await tables.execute(
            "UPDATE deliveries SET attempts = 2, unanswered = 1, state = 'ambiguous', provider_id = 'other', "
            "sent_at = now()"
        )
        return answer(200, {"result": {"message_id": 9}})

    outside.answers = [overtake]
    bus.resources.provide(SERVICES, _services(outside.url))
    async with working(bus, delivery):
        event_id = await _publish(bus, TELEGRAM)
        await rows.until(event_id, "ambiguous")
    [row] = await rows.of(event_id)
    assert (row["provider_id"], row["attempts"]) == ("other", 2)


async def test_a_message_that_was_sent_waits_for_postgresql_to_write_it_down(
    redis_url: str, database_url: str, outside: Peer, rows: Rows
) -> None:
    """Giving up on the record would send it twice."""
    async with Proxy(database_url) as proxy, EventBus(redis_url, database=proxy.url) as bus:
        bus.resources.provide(SERVICES, _services(outside.url))
        lost = proxy.lose_reply_to(b"UPDATE deliveries")
        async with working(bus, delivery):
            event_id = await _publish(bus, TELEGRAM)
            [row] = await rows.until(event_id, "sent")
    assert lost.is_set()
    assert (len(outside.received), row["attempts"], row["unanswered"]) == (1, 1, 0)


async def test_an_attempt_that_is_cut_off_for_good_stays_unknown(bus: EventBus, outside: Peer, rows: Rows) -> None:
    release = asyncio.Event()

    async def hang(_received: Received) -> Any:
        await release.wait()
        return answer(200)

    outside.answers = [hang]
    bus.resources.provide(SERVICES, _services(outside.url))
    async with working(bus, delivery):
        event_id = await _publish(bus, TELEGRAM)
        await outside.until_received(1)
        await bus.events.abort(event_id, delivery.name)
        [row] = await rows.until(event_id, "ambiguous")
        release.set()
    assert (row["attempts"], row["unanswered"], row["sent_at"]) == (1, 1, None)
    assert row["error"] == (await _dead(bus))[0]
