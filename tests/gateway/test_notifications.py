"""/api/notifications: rows made by the worker, seen by their user."""

from typing import Any

import pytest

from eventbus import EventBus
from handlers.notification.events import CreateNotification, NotificationType
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE
from tests.waiting import eventually


async def _notify(bus: EventBus, user: str, title: str, organization: str = "acme") -> None:
    order = CreateNotification(
        user_id=user,
        organization_id=organization,
        title=title,
        message="Look",
        action_url="/leads/1",
        notification_type=NotificationType.SUCCESS,
    )
    await bus.publish(order)


async def _titles(client: Client, query: str = "") -> list[str]:
    return [one["title"] for one in await client.all_of(f"/api/notifications{query}")]


async def test_a_user_sees_his_own_and_reads_them(bus: EventBus, ann: Client, gateway: Gateway, worker: None) -> None:
    await _notify(bus, "ann", "first")

    async def first() -> Any:
        return (await ann.get("/api/notifications")).body["items"]

    [one] = await eventually(first)
    assert one == {
        "id": one["id"],
        "userId": "ann",
        "title": "first",
        "message": "Look",
        "actionUrl": "/leads/1",
        "notificationType": "SUCCESS",
        "readAt": None,
        "createdAt": one["createdAt"],
    }
    read = await ann.post(f"/api/notifications/{one['id']}/read")
    assert (read.status, read.body["id"]) == (200, one["id"])
    assert read.body["readAt"] is not None
    again = await ann.post(f"/api/notifications/{one['id']}/read")
    assert (again.status, again.body) == (200, read.body)


async def test_unread_and_pages(bus: EventBus, ann: Client, worker: None) -> None:
    for title in ("first", "second", "third"):
        await _notify(bus, "ann", title)

        async def there(title: str = title) -> bool:
            return title in await _titles(ann)

        await eventually(there)
    assert await _titles(ann, "?limit=1") == ["third", "second", "first"]
    second = (await ann.get("/api/notifications")).body["items"][1]
    await ann.post(f"/api/notifications/{second['id']}/read")
    for query in ("?unread", "?unread=true", "?unread=1&limit=1"):
        assert await _titles(ann, query) == ["third", "first"]
    assert len(await _titles(ann, "?unread=false")) == 3
    assert (await ann.get("/api/notifications?unread=perhaps")).status == 422


async def test_nobody_sees_or_reads_anothers(
    bus: EventBus, ann: Client, gateway: Gateway, tables: Tables, worker: None
) -> None:
    await _notify(bus, "ann", "secret")

    async def there() -> Any:
        return (await ann.get("/api/notifications")).body["items"]

    [one] = await eventually(there)
    colleague = gateway.caller("bob", "acme", "admin")
    namesake = gateway.caller("ann", "umbrella", "admin")
    for other in (colleague, namesake):
        assert await _titles(other) == []
        assert (await other.post(f"/api/notifications/{one['id']}/read")).status == 404
    assert (await ann.get("/api/notifications")).body["items"][0]["readAt"] is None


@pytest.mark.parametrize("notification", [NOWHERE, "first"])
async def test_what_is_no_notification_cannot_be_read(notification: str, ann: Client) -> None:
    assert (await ann.post(f"/api/notifications/{notification}/read")).status == 404
