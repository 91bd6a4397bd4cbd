"""notification.send_push and notification.send_sms: to browsers and phones."""

import base64
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest
import structlog
from py_vapid import Vapid  # type: ignore[import-untyped]  # it has no types

from eventbus import EventBus
from handlers.notification.events import SendPush, SendSms
from handlers.notification.handlers import notification
from handlers.partners.services import SERVICES, Services
from tests.gateway.browsers import Browser, browser, private_key
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.peer import Peer, answer, peer
from tests.waiting import eventually
from tests.working import working

TOKEN = "the token of the SMS account"


@pytest.fixture
async def outside() -> AsyncIterator[Peer]:
    """A push service, and Twilio."""
    async with peer() as listening:
        listening.otherwise = _created
        yield listening


async def _created(_received: object) -> Any:
    return answer(201, {"sid": "SM1"}, Location="/message/1")


@pytest.fixture
def services(outside: Peer, bus: EventBus) -> Services:
    services = Services(
        sms_base_url=outside.url,
        sms_account_sid="AC1",
        sms_auth_token=TOKEN,
        sms_from="+15550001111",
        push_vapid_private_key=private_key(),
        email_from="crm@example.com",
        callback_allow=outside.url.removeprefix("http://"),
    )
    bus.resources.provide(SERVICES, services)
    return services


@pytest.fixture
async def at_work(bus: EventBus, services: Services) -> AsyncIterator[None]:
    async with working(bus, notification):
        yield


async def _dead(bus: EventBus) -> str:
    async def there() -> Any:
        return await bus.transport.dead_letters("notification")

    [letter] = await eventually(there)
    return letter.error or ""


async def _register(caller: Client, *browsers: Browser) -> None:
    for one in browsers:
        made = await caller.post("/api/push-subscriptions", one.subscription)
        assert made.status == 201, made


async def _deliveries(tables: Tables, count: int, state: str = "sent") -> list[Any]:
    async def there() -> list[Any] | None:
        rows = await tables.fetch("SELECT * FROM deliveries WHERE state = $1 ORDER BY created_at", state)
        return rows if len(rows) == count else None

    return await eventually(there) or []


def push(message: str = "Look", **more: Any) -> SendPush:
    return SendPush(user_id="ann", organization_id="acme", title="News", message=message, **more)


def sms(**changes: Any) -> SendSms:
    values: dict[str, Any] = {"message": "Look", "to": "+4930123"}
    return SendSms(user_id="ann", organization_id="acme", **values | changes)


# Web Push -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_work")
async def test_a_push_reaches_every_browser_of_the_user_and_no_other(
    ann: Client, gateway: Gateway, bus: EventBus, outside: Peer, tables: Tables
) -> None:
    one, two = browser(f"{outside.url}/one"), browser(f"{outside.url}/two", b"f" * 16)
    await _register(ann, one, two)
    await _register(gateway.caller("bob", "acme"), browser(f"{outside.url}/bob"))
    await _register(gateway.caller("ann", "umbrella"), browser(f"{outside.url}/namesake"))
    receipt = await bus.publish(push())
    rows = await _deliveries(tables, 2)
    assert [(row["channel"], row["provider_id"], row["organization"]) for row in rows] == [
        ("push", "/message/1", "acme")
    ] * 2
    assert [sent.path for sent in outside.received] == ["/one", "/two"]
    expected = {"title": "News", "message": "Look", "eventId": receipt.id}
    assert [it.read(sent.body) for it, sent in zip((one, two), outside.received, strict=True)] == [expected] * 2
    headers = outside.received[0].headers
    assert (headers["Content-Encoding"], headers["TTL"], len(headers["Topic"])) == ("aes128gcm", "86400", 22)


async def test_the_push_service_can_tell_that_it_is_us(
    ann: Client, bus: EventBus, outside: Peer, services: Services, at_work: None
) -> None:
    await _register(ann, browser(f"{outside.url}/one"))
    key = (await ann.get("/api/push-subscriptions/key")).body["publicKey"]
    await bus.publish(push())
    [sent] = await outside.until_received(1)
    authorization = sent.headers["Authorization"]
    assert Vapid.verify(authorization)
    assert authorization.endswith(f",k={key}")
    claims = authorization.partition("t=")[2].split(".")[1]
    decoded = base64.urlsafe_b64decode(claims + "==").decode()
    assert f'"aud":"{outside.url}"' in decoded
    assert '"sub":"mailto:crm@example.com"' in decoded


@pytest.mark.usefixtures("at_work")
@pytest.mark.parametrize("status", [404, 410])
async def test_a_browser_that_is_gone_is_forgotten(
    status: int, ann: Client, bus: EventBus, outside: Peer, tables: Tables
) -> None:
    await _register(ann, browser(f"{outside.url}/one"), browser(f"{outside.url}/two"))
    outside.answers = [answer(status)]
    await bus.publish(push())
    await _deliveries(tables, 1)

    async def forgotten() -> bool:
        return [one["endpoint"] for one in await ann.all_of("/api/push-subscriptions")] == [f"{outside.url}/two"]

    await eventually(forgotten)
    assert await bus.transport.dead_letters("notification") == []


async def test_a_retry_goes_to_whom_it_has_not_reached(
    ann: Client, bus: EventBus, outside: Peer, tables: Tables, at_work: None
) -> None:
    one, two, three = (browser(f"{outside.url}/{name}") for name in ("one", "two", "three"))
    await _register(ann, one, two, three)
    outside.answers = [answer(201), answer(429, None, Retry_After="0"), answer(201)]
    await bus.publish(push())
    await _deliveries(tables, 3)
    assert [sent.path for sent in outside.received] == ["/one", "/two", "/three", "/two"]


async def test_what_a_push_service_refuses_is_a_dead_letter_and_the_others_get_it(
    ann: Client, bus: EventBus, outside: Peer, tables: Tables, at_work: None
) -> None:
    await _register(ann, browser(f"{outside.url}/one"), browser(f"{outside.url}/two"))
    outside.answers = [answer(403, {"reason": "VapidPkHashMismatch"})]
    await bus.publish(push())
    assert 'the push service answered 403: {"reason":"VapidPkHashMismatch"}' in await _dead(bus)
    assert len(await _deliveries(tables, 1)) == 1
    assert len(await _deliveries(tables, 1, "failed")) == 1


async def test_a_long_message_is_cut_to_what_push_services_take(
    ann: Client, bus: EventBus, outside: Peer, at_work: None
) -> None:
    one = browser(f"{outside.url}/one")
    await _register(ann, one)
    await bus.publish(push("é" * 4000))
    [sent] = await outside.until_received(1)
    assert len(sent.body) <= 4096
    assert one.read(sent.body)["message"] == "é" * 1500


async def test_an_endpoint_inside_is_not_called(
    ann: Client, bus: EventBus, outside: Peer, tables: Tables, at_work: None
) -> None:
    """Whatever got into the table."""
    await _register(ann, browser(f"{outside.url}/one"))
    inside = outside.url.replace("127.0.0.1", "127.0.0.2")
    await tables.execute("UPDATE push_subscriptions SET endpoint = $1", f"{inside}/one")
    await bus.publish(push())
    assert "127.0.0.2 is no address of the public internet" in await _dead(bus)
    assert outside.received == []


async def test_who_has_no_browser_gets_no_push(bus: EventBus, outside: Peer, at_work: None) -> None:
    with structlog.testing.capture_logs() as logged:
        await bus.publish(push())

        async def told() -> bool:
            return any(line["event"] == "no push subscription" for line in logged)

        await eventually(told)
    assert outside.received == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "Web Push is not configured: set PUSH_VAPID_PRIVATE_KEY"),
        ("hush", "PUSH_VAPID_PRIVATE_KEY is no key of P-256"),
    ],
)
async def test_web_push_that_is_not_configured_says_so(key: str | None, reason: str, bus: EventBus) -> None:
    bus.resources.provide(SERVICES, Services(push_vapid_private_key=key))
    async with working(bus, notification):
        await bus.publish(push())
        dead = await _dead(bus)
    assert reason in dead
    assert "hush" not in dead


# SMS ------------------------------------------------------------------------------------------------------------------


async def test_an_sms(bus: EventBus, outside: Peer, tables: Tables, at_work: None) -> None:
    await bus.publish(sms(title="News"))
    [row] = await _deliveries(tables, 1)
    [sent] = outside.received
    assert (sent.method, sent.path) == ("POST", "/2010-04-01/Accounts/AC1/Messages.json")
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert sent.headers["Authorization"] == "Basic " + base64.b64encode(f"AC1:{TOKEN}".encode()).decode()
    assert parse_qs(sent.body.decode()) == {"To": ["+4930123"], "From": ["+15550001111"], "Body": ["News\nLook"]}
    assert (row["channel"], row["provider_id"], row["state"]) == ("sms", "SM1", "sent")


async def test_a_long_sms_goes_in_parts(bus: EventBus, outside: Peer, tables: Tables, at_work: None) -> None:
    await bus.publish(sms(message="a" * 1600 + "b"))
    await _deliveries(tables, 2)
    assert [parse_qs(sent.body.decode())["Body"][0][0] for sent in outside.received] == ["a", "b"]


async def test_what_twilio_refuses_is_a_dead_letter_in_its_words(bus: EventBus, outside: Peer, at_work: None) -> None:
    outside.answers = [answer(400, {"code": 21211, "message": f"The 'To' number is not valid, {TOKEN}", "status": 400})]
    await bus.publish(sms())
    dead = await _dead(bus)
    assert "the SMS service refused: The 'To' number is not valid, *** (21211)" in dead
    assert len(outside.received) == 1


async def test_twilio_is_asked_again_when_it_is_busy(
    bus: EventBus, outside: Peer, tables: Tables, at_work: None
) -> None:
    outside.answers = [answer(429, {"code": 20429}, Retry_After="0.1")]
    await bus.publish(sms())
    [row] = await _deliveries(tables, 1)
    assert (len(outside.received), row["attempts"], row["unanswered"]) == (2, 2, 0)


@pytest.mark.parametrize(
    ("event", "reason"),
    [(sms(to=None), "`to` is missing"), (sms(message=" "), "there is no text to send by SMS")],
)
async def test_an_sms_that_cannot_be_sent(event: SendSms, reason: str, bus: EventBus, at_work: None) -> None:
    await bus.publish(event)
    assert reason in await _dead(bus)


async def test_sms_that_are_not_configured_say_what_to_set(bus: EventBus) -> None:
    bus.resources.provide(SERVICES, Services(sms_account_sid="AC1"))
    async with working(bus, notification):
        await bus.publish(sms())
        assert "SMS is not configured: set SMS_AUTH_TOKEN and SMS_FROM" in await _dead(bus)
