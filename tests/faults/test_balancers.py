"""A gateway behind a balancer is told to stop, under load: nobody is refused, and no event is lost or doubled."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from eventbus.embedded.ports import free_port
from eventbus.redis.keys import stream_keys
from gateway.callers.auth import make_token
from tests.docs.pages import ROOT, blocks
from tests.faults.balancers import Balancer, Haproxy, Nginx, started
from tests.faults.crm import ORGANIZATION, SECRET
from tests.faults.fleet import Fleet, Running
from tests.waiting import PATIENCE, eventually, until

CLIENTS = 4
SOME = 100  # answers
EVENT = {"specversion": "1.0", "source": "/tests", "type": "lead.enrich", "data": {"leadId": "7"}}


class Gateways:
    """Processes on servers that they share. Each is at a port of its own, and drains until a second signal."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self._folder = folder
        self._environment = {
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_DATABASE_URL": database_url,
            "EVENTBUS_SPOOL_PATH": "",
            "EVENTBUS_JWT_SECRET": SECRET,
            "EVENTBUS_LOG_FORMAT": "json",
            "EVENTBUS_RATE_LIMIT": "off",
            "EVENTBUS_DRAIN_SECONDS": str(10 * PATIENCE),
        }
        self.fleets: dict[int, Fleet] = {}

    async def start(self) -> int:
        """Its port. Returns when it is ready."""
        port = free_port()
        folder = self._folder / f"gateway-{port}"
        folder.mkdir()
        fleet = self.fleets[port] = Fleet(folder, "gateway", {**self._environment, "EVENTBUS_PORT": str(port)})
        process = fleet.start()

        async def ready() -> bool:
            assert process.poll() is None, fleet.log()
            return await self.readiness(port) == 200

        await eventually(ready)
        return port

    async def readiness(self, port: int) -> int:
        """The status of /readyz; 0 if nobody listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/readyz") as answer,
            ):
                return answer.status
        except aiohttp.ClientConnectionError:
            return 0

    def process(self, port: int) -> Running:
        return self.fleets[port].processes[0]

    def end(self) -> None:
        for fleet in self.fleets.values():
            fleet.end()


class Load:
    """Clients that post one event after the other. `answers`: by status, or by the name of what went wrong."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers = Counter[str]()
        self.accepted: list[str] = []

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        token = make_token(SECRET, user="feed", organization=ORGANIZATION, roles=frozenset({"system"}))
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/cloudevents+json"}
        # A connection that a balancer closes while nobody asks would be a race between it and this client.
        connector = aiohttp.TCPConnector(force_close=True)
        stopping = asyncio.Event()
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE)
        ) as session:
            posting = [asyncio.create_task(self._post(session, client, stopping)) for client in range(CLIENTS)]
            try:
                yield
            finally:
                stopping.set()
                await asyncio.gather(*posting)

    async def _post(self, session: aiohttp.ClientSession, client: int, stopping: asyncio.Event) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            try:
                event = {**EVENT, "id": f"{client}-{number}"}
                async with session.post(f"{self._url}/api/events", json=event) as answer:
                    self.answers[str(answer.status)] += 1
                    if answer.status == 202:
                        self.accepted.append((await answer.json())["eventId"])
            except (aiohttp.ClientError, TimeoutError) as error:
                self.answers[type(error).__name__] += 1

    async def some_more(self) -> None:
        """Returns when so many more have been answered."""
        wanted = self.answers.total() + SOME
        await until(lambda: self.answers.total() >= wanted)


def test_haproxy_takes_what_the_documents_tell(tmp_path: Path) -> None:
    [told] = [block.text for block in blocks(ROOT / "docs" / "deploying.md") if "option httpchk" in block.text]
    config = tmp_path / "haproxy.cfg"
    usual = "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
    entrance = f"frontend entrance\n  bind 127.0.0.1:{free_port()}\n  default_backend gateways\n"
    config.write_text(f"{usual}{entrance}{told}\n", encoding="utf-8")
    process = started(tmp_path, "haproxy", "-c", "-f", str(config))
    assert process.wait(PATIENCE) == 0, (tmp_path / "haproxy.log").read_text(encoding="utf-8")


@pytest.fixture
def gateways(tmp_path: Path, redis_url: str, database_url: str) -> Iterator[Gateways]:
    gateways = Gateways(tmp_path, redis_url, database_url)
    yield gateways
    gateways.end()


@pytest.mark.parametrize("kind", [Haproxy, Nginx], ids=lambda kind: kind.__name__.lower())
async def test_nobody_is_refused_while_a_gateway_leaves(
    kind: type[Haproxy | Nginx], gateways: Gateways, redis_url: str, tmp_path: Path
) -> None:
    leaving, staying = await asyncio.gather(gateways.start(), gateways.start())
    balancer: Balancer = kind(tmp_path, [leaving, staying])
    process = gateways.process(leaving)
    try:
        await balancer.start()
        load = Load(balancer.url)
        async with load.flowing():
            await load.some_more()
            process.send_signal(signal.SIGTERM)

            async def draining() -> bool:
                return await gateways.readiness(leaving) != 200

            await eventually(draining)
            await load.some_more()
            await balancer.leave_out(leaving)
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0
            await load.some_more()
    finally:
        balancer.end()
    assert load.answers.keys() == {"202"}, load.answers
    async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        entries: Any = await client.xrange(stream_keys("eb", "lead").stream)
    assert Counter(fields[b"id"].decode() for _, fields in entries) == Counter(load.accepted)
    assert "draining" not in gateways.fleets[staying].log()
