"""A worker dies around a send to a service outside: the peer counts what arrives, and the record says what is known."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from eventbus import EventBus
from eventbus.event import uuid7
from handlers.message.events import Channel, MessageResponded
from tests.faults.crm import ORGANIZATION, Crm
from tests.gateway.peer import Peer, Received, answer, peer
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, eventually

MESSAGES = 60


@pytest.fixture
async def outside() -> AsyncIterator[Peer]:
    async with peer() as listening:
        yield listening


@pytest.fixture
async def crm(
    tmp_path: Path, own_redis: OwnRedis, database_url: str, outside: Peer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Crm]:
    monkeypatch.setenv("TELEGRAM_BASE_URL", outside.url)
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:token")
    monkeypatch.setenv("WHATSAPP_BASE_URL", outside.url)
    monkeypatch.setenv("WHATSAPP_ACCESS_TOKEN", "token")
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    yield crm
    await crm.end()


def respond(number: int) -> MessageResponded:
    return MessageResponded(
        message_id=uuid7(),
        conversation_id=uuid7(),
        channel=Channel.TELEGRAM,
        channel_metadata={"chatId": number},
        message=f"message {number}",
    )


async def publish(crm: Crm, *numbers: int) -> None:
    async with EventBus(crm.redis_url) as bus:
        for number in numbers:
            await bus.publish(respond(number), organization=ORGANIZATION)


async def confirmed(crm: Crm, count: int) -> list[Any]:
    async def there() -> list[Any]:
        rows = await crm.sql("SELECT * FROM deliveries WHERE sent_at IS NOT NULL")
        return rows if len(rows) == count and await crm.at_rest() else []

    return await eventually(there)


def arrived(outside: Peer) -> list[int]:
    return [sent.json["chat_id"] for sent in outside.received]


async def test_killed_inside_the_send_it_is_sent_again_and_known_to_be_ambiguous(crm: Crm, outside: Peer) -> None:
    async def kill(_received: Received) -> Any:
        crm.workers.kill(crm.workers.processes[0])
        crm.workers.start()
        return answer(200, {"result": {"message_id": 1}})

    outside.answers = [kill]
    crm.workers.start()
    await publish(crm, 7)
    [row] = await confirmed(crm, 1)
    assert arrived(outside) == [7, 7]
    assert (row["state"], row["attempts"], row["unanswered"]) == ("ambiguous", 2, 1)
    assert await crm.dead() == []


async def test_killed_behind_the_answer_it_is_sent_again_and_known_to_be_ambiguous(crm: Crm, outside: Peer) -> None:
    process = crm.workers.start(crash="delivery.sent")
    await publish(crm, 7)
    await asyncio.to_thread(process.wait, PATIENCE)
    [row] = await crm.sql("SELECT state, unanswered FROM deliveries")
    assert tuple(row) == ("sending", 0)
    crm.workers.start()
    [row] = await confirmed(crm, 1)
    assert arrived(outside) == [7, 7]
    assert (row["state"], row["attempts"], row["unanswered"]) == ("ambiguous", 2, 1)


async def test_killed_behind_the_record_it_is_not_sent_again(crm: Crm, outside: Peer) -> None:
    process = crm.workers.start(crash="delivery.recorded")
    await publish(crm, 7)
    await asyncio.to_thread(process.wait, PATIENCE)
    crm.workers.start()
    [row] = await confirmed(crm, 1)
    assert arrived(outside) == [7]
    assert (row["state"], row["attempts"], row["unanswered"]) == ("sent", 1, 0)


@pytest.mark.timeout(120)
async def test_every_duplicate_is_on_record_though_workers_are_killed(crm: Crm, outside: Peer) -> None:
    """What arrived more often than once is ambiguous, and no more often than its record allows; nothing is missing."""

    async def slowly(_received: Received) -> Any:
        await asyncio.sleep(0.05)
        return answer(200, {"result": {"message_id": 1}})

    outside.otherwise = slowly
    for _ in range(2):
        crm.workers.start()
    await at_work(crm, outside)
    before = len(outside.received)
    await publish(crm, *range(1, MESSAGES + 1))
    kills = 0
    for threshold in (10, 30, 50):
        await outside.until_received(before + threshold)
        crm.workers.kill(crm.workers.processes[0])
        crm.workers.start()
        kills += 1
    rows = await confirmed(crm, MESSAGES + 1)
    counts = {number: arrived(outside).count(number) for number in range(1, MESSAGES + 1)}
    assert min(counts.values()) == 1
    duplicates = sum(count - 1 for count in counts.values())
    unanswered = sum(row["unanswered"] for row in rows)
    ambiguous = [row for row in rows if row["state"] == "ambiguous"]
    assert len(ambiguous) == len([row for row in rows if row["unanswered"]])
    assert sum(count > 1 for count in counts.values()) <= len(ambiguous)
    assert duplicates <= unanswered <= 5 * kills, "as many as a worker has under way"
    assert await crm.dead() == []
    print(f"{MESSAGES} messages, {kills} workers killed, {duplicates} arrived twice, {unanswered} unanswered on record")


async def at_work(crm: Crm, outside: Peer) -> None:
    """A worker is up."""
    await publish(crm, 0)
    await outside.until_received(1, timeout=PATIENCE)


async def test_an_import_resumes_behind_the_page_that_was_committed(crm: Crm, outside: Peer) -> None:
    """Fault: SIGKILL between two pages of a WhatsApp history."""
    pages = 4

    async def serve(received: Received) -> Any:
        number = int(received.path.partition("after=")[2] or 0)
        message = {"id": f"wamid.{number}", "from": "49", "to": "1066", "timestamp": str(1_700_000_000 + number)}
        content = [message | {"type": "text", "text": {"body": f"message {number}"}}]
        paging = {"paging": {"cursors": {"after": str(number + 1)}}} if number + 1 < pages else {}
        return answer(200, {"data": content, **paging})

    outside.otherwise = serve
    await crm.start_gateway()
    async with crm.client() as client:
        async with client.post("/api/agents", json={"name": "Support"}) as response:
            agent = (await response.json())["id"]
        connection = {"channel": "whatsapp", "account": "1066", "agentId": agent}
        async with client.post("/api/connections", json=connection) as response:
            assert response.status == 201
    process = crm.workers.start(crash="import.committed:2")
    await asyncio.to_thread(process.wait, PATIENCE)
    assert len(await crm.sql("SELECT 1 FROM messages")) == 2
    crm.workers.start()

    async def finished() -> Any:
        return await crm.sql("SELECT 1 FROM whatsapp_imports WHERE finished_at IS NOT NULL")

    await eventually(finished)
    rows = await crm.sql("SELECT content FROM messages ORDER BY position")
    assert [row["content"] for row in rows] == [f"message {number}" for number in range(pages)]
    assert [one.path.partition("after=")[2] for one in outside.received] == ["", "1", "2", "3"]
