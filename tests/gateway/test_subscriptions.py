"""/api/push-subscriptions: each user's own browsers."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from eventbus import EventBus
from handlers.partners.services import SERVICES, Services
from handlers.subscription.models import decode
from handlers.subscription.service import MOST
from tests.gateway.browsers import browser, encode, private_key
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE

URL = "https://push.example.com/send/abc"


async def test_a_browser_is_registered_seen_and_forgotten(ann: Client, tables: Tables) -> None:
    made = await ann.post("/api/push-subscriptions", browser(URL).subscription)
    assert made.status == 201, made
    assert made.body == {"id": made.body["id"], "endpoint": URL, "createdAt": made.body["createdAt"]}
    assert (await ann.get("/api/push-subscriptions")).body["items"] == [made.body]
    path = made.headers["Location"]
    assert (await ann.get(path)).body == made.body
    assert [(await ann.delete(path)).status for _ in range(2)] == [204, 404]
    assert await tables.count("push_subscriptions") == 0


async def test_the_same_endpoint_is_the_same_subscription_with_its_latest_keys(ann: Client, tables: Tables) -> None:
    first, second = browser(URL).subscription, browser(URL).subscription
    ids = {(await ann.post("/api/push-subscriptions", one)).body["id"] for one in (first, second)}
    assert len(ids) == 1
    [row] = await tables.fetch("SELECT * FROM push_subscriptions")
    assert (row["organization"], row["user_id"], row["p256dh"]) == ("acme", "ann", second["keys"]["p256dh"])


async def test_a_browser_is_whoevers_who_sits_before_it(
    ann: Client, gateway: Gateway, stranger: Client, tables: Tables
) -> None:
    """What is meant for Ann must not come up on the screen that is Bob's now. Another organization's is another one."""
    bob = gateway.caller("bob", "acme")
    for caller in (ann, stranger, bob):
        assert (await caller.post("/api/push-subscriptions", browser(URL).subscription)).status == 201
    rows = await tables.fetch("SELECT organization, user_id FROM push_subscriptions ORDER BY 1")
    assert [tuple(row) for row in rows] == [("acme", "bob"), ("umbrella", "eve")]
    assert (await ann.get("/api/push-subscriptions")).body["items"] == []


async def test_nobody_sees_or_forgets_anothers(ann: Client, gateway: Gateway, stranger: Client) -> None:
    made = await ann.post("/api/push-subscriptions", browser(URL).subscription)
    for other in (gateway.caller("bob", "acme", "admin"), gateway.caller("ann", "umbrella"), stranger):
        assert (await other.get("/api/push-subscriptions")).body["items"] == []
        assert (await other.get(made.headers["Location"])).status == 404
        assert (await other.delete(made.headers["Location"])).status == 404
    assert len((await ann.get("/api/push-subscriptions")).body["items"]) == 1
    assert (await ann.delete(f"/api/push-subscriptions/{NOWHERE}")).status == 404


async def test_the_oldest_gives_way(ann: Client, tables: Tables) -> None:
    for number in range(MOST + 2):
        assert (await ann.post("/api/push-subscriptions", browser(f"{URL}/{number}").subscription)).status == 201
    found = await ann.all_of("/api/push-subscriptions?limit=7")
    assert [one["endpoint"] for one in found] == [f"{URL}/{number}" for number in range(MOST + 1, 1, -1)]


def _with(changes: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    fine = browser(URL).subscription
    return fine | {"keys": fine["keys"] | keys} | changes


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"endpoint": "http://169.254.169.254/latest"}, {}),
        ({"endpoint": "https://localhost/"}, {}),
        ({"endpoint": "ftp://push.example.com/"}, {}),
        ({"endpoint": "https://u:p@push.example.com/"}, {}),
        ({"endpoint": ""}, {}),
        ({"endpoint": 5}, {}),
        ({"keys": {}}, {}),
        ({"more": 1}, {}),
        ({}, {"auth": ""}),
        ({}, {"auth": encode(b"short")}),
        ({}, {"auth": "é" * 22}),
        ({}, {"auth": "A"}),
        ({}, {"auth": encode(b"0123456789abcdef") + "\0"}),
        ({}, {"auth": "!" + encode(b"0123456789abcdef")}),
        ({}, {"p256dh": ""}),
        ({}, {"p256dh": encode(b"\x04" + b"\0" * 64)}),
        ({}, {"p256dh": encode(b"\x04" * 65)}),
        ({}, {"p256dh": "x" * 129}),
    ],
)
async def test_what_is_no_subscription(
    changes: dict[str, Any], keys: dict[str, Any], ann: Client, tables: Tables
) -> None:
    assert (await ann.post("/api/push-subscriptions", _with(changes, keys))).status == 422
    assert await tables.count("push_subscriptions") == 0


async def test_the_public_key_is_given_to_browsers(bus: EventBus, ann: Client) -> None:
    bus.resources.provide(SERVICES, Services(push_vapid_private_key=(private := private_key())))
    found = await ann.get("/api/push-subscriptions/key")
    numbers = ec.derive_private_key(int.from_bytes(decode(private), "big"), ec.SECP256R1()).public_key()
    expected = numbers.public_numbers()
    point = b"\x04" + expected.x.to_bytes(32, "big") + expected.y.to_bytes(32, "big")
    assert (found.status, found.body) == (200, {"publicKey": encode(point)})


@pytest.mark.parametrize("key", [None, "", "no key", "A" * 43 + "="])
async def test_where_web_push_is_not_configured_there_is_no_key(key: str | None, bus: EventBus, ann: Client) -> None:
    bus.resources.provide(SERVICES, Services(push_vapid_private_key=key))
    found = await ann.get("/api/push-subscriptions/key")
    assert found.status == 404
    assert not key or key not in str(found.body)
