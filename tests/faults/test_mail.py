"""A worker dies while it sends mail: nobody is forgotten, and nobody gets it twice but where SMTP leaves no choice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventbus import EventBus
from handlers import jobs
from tests.faults.crm import Crm
from tests.mailserver import MailServer, mail_server
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, eventually

MANY = [f"reader-{number}@example.com" for number in range(7)]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        monkeypatch.setenv("SMTP_URL", server.url)
        monkeypatch.setenv("EMAIL_FROM", "sales@acme.example")
        monkeypatch.setenv("EVENTBUS_HISTORY_DAYS", "0")  # it settles too: a worker would die there, in mid-mail
        yield server


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str, server: MailServer) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    yield crm
    await crm.end()


async def _dies_and_is_followed(crm: Crm, crash: str) -> None:
    """Until all is at rest."""
    first = crm.workers.start(crash=crash)
    await asyncio.to_thread(first.wait, PATIENCE)
    crm.workers.start()
    await eventually(crm.at_rest)
    assert await crm.dead() == []


@pytest.mark.parametrize("crash", ["inbox.commit", "inbox.committed", "consumer.settle"])
async def test_a_list_is_split_once_whenever_its_worker_dies(crash: str, crm: Crm, server: MailServer) -> None:
    async with EventBus(crm.redis_url) as bus:
        await jobs.send_bulk_email(bus, to=MANY, organization="acme", subject="News", message="There is news.")
    await _dies_and_is_followed(crm, crash)
    assert Counter(mail.to for mail in server.received) == Counter(MANY)


async def test_a_mail_that_was_noted_is_not_sent_again(crm: Crm, server: MailServer) -> None:
    async with EventBus(crm.redis_url) as bus:
        await jobs.send_welcome_email(bus, to=MANY[0], organization="acme")
    await _dies_and_is_followed(crm, "consumer.settle")
    assert len(server.received) == 1


async def test_a_mail_that_was_taken_and_not_noted_is_sent_again_with_the_same_id(crm: Crm, server: MailServer) -> None:
    """At least once: between the server's answer and the note there is a moment of which nobody knows afterwards."""
    async with EventBus(crm.redis_url) as bus:
        receipt = await jobs.send_welcome_email(bus, to=MANY[0], organization="acme")
    await _dies_and_is_followed(crm, "inbox.commit")
    ids = [mail.message["Message-ID"] for mail in server.received]
    assert ids == [f"<{receipt.id}@acme.example>"] * 2
