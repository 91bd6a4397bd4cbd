"""Group `whatsapp-sync`: a history in pages, each message once."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from eventbus import EventBus
from handlers.partners.services import SERVICES, Services
from handlers.whatsapp.events import ConnectionEstablished
from handlers.whatsapp.handlers import whatsapp_sync
from tests.gateway.client import Client
from tests.gateway.conftest import Tables
from tests.gateway.peer import Peer, Received, answer, peer
from tests.gateway.test_connections import new_agent
from tests.gateway.test_webhooks import payload, said, whatsapp
from tests.waiting import eventually
from tests.working import working

LEA, BEN, US = "4930123", "4930999", "1066"


def past(number: int, sender: str = LEA, to: str = US, **more: Any) -> dict[str, Any]:
    message = {"id": f"wamid.{number}", "from": sender, "to": to, "timestamp": str(1_700_000_000 + number)}
    return message | {"type": "text", "text": {"body": f"message {number}"}} | more


class History(Peer):
    """Serves `pages`; a page's cursor is its number."""

    pages: list[list[Any]]

    async def serve(self, received: Received) -> web.Response:
        query = parse_qs(urlsplit(received.path).query)
        number = int(query.get("after", ["0"])[0])
        paging = {"paging": {"cursors": {"after": str(number + 1)}}} if number + 1 < len(self.pages) else {}
        return answer(200, {"data": self.pages[number], **paging})


@pytest.fixture
async def provider() -> AsyncIterator[Peer]:
    async with peer() as listening:
        yield listening


@pytest.fixture
def history(provider: Peer, bus: EventBus) -> Peer:
    services = Services(
        whatsapp_base_url=f"{provider.url}/v21.0", whatsapp_access_token="token", whatsapp_app_secret="app secret"
    )
    bus.resources.provide(SERVICES, services)
    return provider


def offer(provider: Peer, *pages: list[Any]) -> None:
    served = History()
    served.pages = list(pages)
    provider.otherwise = served.serve


async def connect(admin: Client, account: str = US) -> str:
    connection = {"channel": "whatsapp", "account": account, "agentId": await new_agent(admin)}
    made = await admin.post("/api/connections", connection)
    assert made.status == 201, made
    found: str = made.body["id"]
    return found


async def finished(tables: Tables) -> Any:
    async def ended() -> list[Any]:
        return await tables.fetch("SELECT * FROM whatsapp_imports WHERE finished_at IS NOT NULL")

    [row] = await eventually(ended)
    return row


async def _contents(tables: Tables) -> list[tuple[str, str]]:
    rows = await tables.fetch("SELECT role, content FROM messages ORDER BY position")
    return [(row["role"], row["content"]) for row in rows]


async def test_a_history_is_imported_page_by_page(admin: Client, bus: EventBus, history: Peer, tables: Tables) -> None:
    offer(history, [past(1), past(2, US, LEA)], [past(3, BEN)], [past(4)])
    await connect(admin)
    async with working(bus, whatsapp_sync):
        row = await finished(tables)
    assert (row["organization"], row["pages"], row["cursor"]) == ("acme", 3, None)
    assert [(one.method, one.path) for one in history.received] == [
        ("GET", "/v21.0/1066/message_history?limit=100"),
        ("GET", "/v21.0/1066/message_history?limit=100&after=1"),
        ("GET", "/v21.0/1066/message_history?limit=100&after=2"),
    ]
    assert {one.headers["Authorization"] for one in history.received} == {"Bearer token"}
    rows = await tables.fetch("SELECT * FROM messages ORDER BY position")
    assert [(row["role"], row["content"], row["user_id"]) for row in rows] == [
        ("user", "message 1", "root"),
        ("assistant", "message 2", "root"),
        ("user", "message 3", "root"),
        ("user", "message 4", "root"),
    ]
    assert rows[0]["created_at"].timestamp() == 1_700_000_001
    talks = [row["conversation_id"] for row in rows]
    assert talks[0] == talks[1] == talks[3] != talks[2]
    told = await admin.all_of(f"/api/conversations/{talks[0]}/messages")
    assert [one["message"] for one in told] == ["message 1", "message 2", "message 4"]
    assert await tables.events("message.received") == [], "what is past is not to be answered"


async def test_it_resumes_behind_the_last_page_that_was_committed(
    admin: Client, bus: EventBus, history: Peer, tables: Tables
) -> None:
    offer(history, [past(1)], [past(2)], [past(3)])
    serve = history.otherwise

    async def fail_once(received: Received) -> web.Response | None:
        if len(history.received) == 2:
            return answer(503, None, Retry_After="0")
        return await serve(received)

    history.otherwise = fail_once
    await connect(admin)
    async with working(bus, whatsapp_sync):
        await finished(tables)
    assert [one.path.partition("after=")[2] for one in history.received] == ["", "1", "1", "2"]
    assert len(await _contents(tables)) == 3


async def test_what_is_read_twice_adds_nothing(admin: Client, bus: EventBus, history: Peer, tables: Tables) -> None:
    """Pages that overlap, an import from the beginning, an event that is published twice."""
    offer(history, [past(1), past(2)], [past(2), past(3, US, LEA)], [past(3, US, LEA), past(1)])
    connection_id = await connect(admin)
    async with working(bus, whatsapp_sync):
        await finished(tables)
        before = await _contents(tables)
        assert len(before) == 3
        await tables.execute("UPDATE whatsapp_imports SET cursor = NULL, finished_at = NULL")
        await bus.publish(ConnectionEstablished(connection_id=connection_id, organization_id="acme"))
        await finished(tables)
        asked = len(history.received)
        await bus.publish(ConnectionEstablished(connection_id=connection_id, organization_id="acme"))
        await bus.publish(ConnectionEstablished(connection_id="gone", organization_id="acme"))
    assert await _contents(tables) == before
    assert (asked, len(history.received)) == (6, 6)


async def test_what_came_by_webhook_is_not_imported_again(
    admin: Client, bus: EventBus, history: Peer, tables: Tables
) -> None:
    await connect(admin)
    assert (await whatsapp(admin, payload(said("by webhook", "wamid.1")))).status == 200
    offer(history, [past(1), past(2), past(3, timestamp="4000000000")])
    async with working(bus, whatsapp_sync):
        await finished(tables)
    assert await _contents(tables) == [("user", "by webhook"), ("user", "message 2")]


async def test_nor_does_a_webhook_bring_what_was_imported(
    admin: Client, bus: EventBus, history: Peer, tables: Tables
) -> None:
    offer(history, [past(1)])
    await connect(admin)
    async with working(bus, whatsapp_sync):
        await finished(tables)
    assert (await whatsapp(admin, payload(said("message 1", "wamid.1"), said("new", "wamid.2")))).status == 200
    assert await _contents(tables) == [("user", "message 1"), ("user", "new")]
    assert len(await tables.events("message.received")) == 1


async def test_an_import_that_was_overtaken_moves_nothing(
    admin: Client, bus: EventBus, history: Peer, tables: Tables
) -> None:
    """A worker was frozen between asking and writing: another one has gone on meanwhile."""

    async def overtake(_received: Received) -> web.Response:
        await tables.execute("UPDATE whatsapp_imports SET cursor = '9', pages = 9, finished_at = now()")
        return answer(200, {"data": [past(1)], "paging": {"cursors": {"after": "1"}}})

    history.otherwise = overtake
    await connect(admin)
    async with working(bus, whatsapp_sync):
        await finished(tables)
    [row] = await tables.fetch("SELECT cursor, pages FROM whatsapp_imports")
    assert (row["cursor"], row["pages"], await _contents(tables)) == ("9", 9, [])


async def _dead(bus: EventBus) -> str:
    async def there() -> Any:
        return await bus.transport.dead_letters("whatsapp")

    [letter] = await eventually(there)
    return letter.error or ""


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([answer(404, {"error": {"message": "Unknown path components"}})], "WhatsApp's history answered 404"),
        ([answer(200, {"data": [], "paging": {"cursors": {"after": "1"}}}) for _ in range(2)], "does not end"),
    ],
)
async def test_a_history_that_cannot_be_read_is_a_dead_letter(
    answers: list[web.Response], reason: str, admin: Client, bus: EventBus, history: Peer
) -> None:
    history.answers = list(answers)
    await connect(admin)
    async with working(bus, whatsapp_sync):
        assert reason in await _dead(bus)


async def test_without_a_token_it_says_what_to_set(admin: Client, bus: EventBus) -> None:
    bus.resources.provide(SERVICES, Services())
    await connect(admin)
    async with working(bus, whatsapp_sync):
        assert "set WHATSAPP_ACCESS_TOKEN" in await _dead(bus)


async def test_what_makes_no_sense_in_a_history_is_left_out(
    admin: Client, bus: EventBus, history: Peer, tables: Tables
) -> None:
    odd = [
        None,
        {},
        past(1, timestamp="soon"),
        past(2, timestamp="9" * 30),
        past(3, text=None),
        past(4, type="reaction"),
    ]
    offer(history, [*odd, past(5, text={"body": "a\x00b"})])
    await connect(admin)
    async with working(bus, whatsapp_sync):
        await finished(tables)
    assert await _contents(tables) == [("user", "a b")]
