"""Faults 12 and 19: gateways die with sockets open. No response is lost, and those of others are not seen."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from eventbus import EventBus
from eventbus.embedded.ports import free_port
from gateway.callers.auth import make_token
from handlers.delivery.handlers import delivery
from handlers.message.events import Channel, MessageResponded
from tests.faults.crm import ORGANIZATION, SECRET, Crm
from tests.faults.fleet import Fleet
from tests.servers import OwnRedis
from tests.waiting import PATIENCE, eventually
from tests.working import working

USERS = [f"user-{number}" for number in range(5)]
RESPONSES = 40  # for each of them


@pytest.fixture
async def crm(tmp_path: Path, own_redis: OwnRedis, database_url: str) -> AsyncIterator[Crm]:
    crm = Crm(tmp_path, own_redis().url, database_url)
    await crm.migrate()
    yield crm
    await crm.end()


class Reader:
    """A client of one user that comes back whenever it is cut off, at one gateway or the other."""

    def __init__(self, user: str, urls: list[str]) -> None:
        token = make_token(SECRET, user=user, organization=ORGANIZATION)
        self._urls = [f"{url}/ws/chat?token={token}" for url in urls]
        self.user = user
        self.seen: list[str] = []

    async def run(self, session: aiohttp.ClientSession) -> None:
        for number in range(10_000):
            with suppress(aiohttp.ClientError):
                async with session.ws_connect(self._urls[number % 2]) as socket:
                    async for message in socket:
                        self._hear(message.json())
            await asyncio.sleep(0.05)

    def _hear(self, frame: Any) -> None:
        if frame["type"] == "message":
            self.seen.append(frame["data"]["messageId"])


async def test_no_response_is_lost_when_gateways_are_killed(crm: Crm, tmp_path: Path) -> None:
    fleets = [Gateways(tmp_path, crm, number) for number in range(2)]
    readers = [Reader(user, [fleet.url for fleet in fleets]) for user in USERS]
    ids = {user: [f"{user}-{number}" for number in range(RESPONSES)] for user in USERS}
    try:
        for fleet in fleets:
            await fleet.start()
        async with EventBus(crm.redis_url, database=crm.database_url) as bus, aiohttp.ClientSession() as session:
            reading = [asyncio.create_task(reader.run(session)) for reader in readers]
            async with working(bus, delivery):
                killing = asyncio.create_task(_kill_in_turn(fleets))
                for number in range(RESPONSES):
                    for user in USERS:
                        await bus.publish(_response(user, ids[user][number]), organization=ORGANIZATION)
                    await asyncio.sleep(0.1)
                await killing

                async def all_seen() -> bool:
                    return all(set(reader.seen) >= set(ids[reader.user]) for reader in readers)

                await eventually(all_seen)

                async def all_taken() -> bool:
                    return not await crm.sql("SELECT 1 FROM responses_waiting WHERE taken_at IS NULL")

                await eventually(all_taken)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
    finally:
        for fleet in fleets:
            fleet.processes.end()
    for reader in readers:
        assert set(reader.seen) == set(ids[reader.user]), "nobody else's"
        assert max(Counter(reader.seen).values()) <= 2, "again only where a gateway died before the client's word"
    assert await crm.dead() == []


async def test_what_a_client_has_not_confirmed_when_its_gateway_dies_is_sent_again(crm: Crm, tmp_path: Path) -> None:
    first, second = Gateways(tmp_path, crm, 0), Gateways(tmp_path, crm, 1)
    token = make_token(SECRET, user="ann", organization=ORGANIZATION)
    try:
        await first.start()
        async with EventBus(crm.redis_url, database=crm.database_url) as bus, aiohttp.ClientSession() as session:
            async with working(bus, delivery):
                mute = await session.ws_connect(f"{first.url}/ws/chat?token={token}", autoping=False)
                assert (await mute.receive_json(timeout=PATIENCE))["type"] == "connected"
                await bus.publish(_response("ann", "m-1"), organization=ORGANIZATION)
                assert (await mute.receive_json(timeout=PATIENCE))["data"]["messageId"] == "m-1"
                await asyncio.sleep(0.5)
                first.processes.end()
                await mute.close()
            await second.start()
            async with session.ws_connect(f"{second.url}/ws/chat?token={token}") as socket:
                assert (await socket.receive_json(timeout=PATIENCE))["type"] == "connected"
                assert (await socket.receive_json(timeout=PATIENCE))["data"]["messageId"] == "m-1"
    finally:
        first.processes.end()
        second.processes.end()


class Gateways:
    """The processes, one after the other, of one gateway."""

    def __init__(self, folder: Path, crm: Crm, number: int) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        (folder / f"gateway-{number}").mkdir()
        environment = {
            **os.environ,
            "EVENTBUS_REDIS_URL": crm.redis_url,
            "EVENTBUS_DATABASE_URL": crm.database_url,
            "EVENTBUS_JWT_SECRET": SECRET,
            "EVENTBUS_PORT": self.url.rpartition(":")[2],
            "EVENTBUS_LOG_FORMAT": "json",
        }
        self.processes = Fleet(folder / f"gateway-{number}", "gateway", environment)

    async def start(self) -> None:
        """Returns when it answers."""
        self.processes.start()
        async with aiohttp.ClientSession() as session:

            async def answers() -> bool:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/livez") as answer:
                        return answer.status == 200
                return False

            await eventually(answers)


async def _kill_in_turn(fleets: list[Gateways]) -> None:
    for fleet in (*fleets, *fleets):
        await asyncio.sleep(0.4)
        fleet.processes.end()
        await fleet.start()


def _response(user: str, message_id: str) -> MessageResponded:
    return MessageResponded(
        message_id=message_id, conversation_id="c", user_id=user, channel=Channel.WEB, message=f"to {user}"
    )
