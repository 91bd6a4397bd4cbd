"""Many sockets at a time: each is answered, on its own. How fast, python -m benchmarks.sockets measures."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from benchmarks.programs.chatting import Client, Crowd
from eventbus import EventBus
from eventbus.event import uuid7
from gateway.callers.auth import make_token
from handlers import GROUPS
from handlers.partners.services import SERVICES, Services
from tests.gateway import n8n as peer
from tests.gateway.client import SECRET, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.n8n import Asked
from tests.working import working

SOCKETS, MESSAGES, SECONDS = 200, 100, 2.0


@pytest.fixture
async def answering(bus: EventBus) -> AsyncIterator[None]:
    """A workflow that says what it was told, and a worker that asks it."""

    async def say_it_again(asked: Asked) -> web.Response:
        return peer.say(asked.payload["message"])

    async with peer.serving() as n8n:
        n8n.answer = say_it_again
        bus.resources.provide(SERVICES, Services(n8n_base_url=n8n.url))
        async with working(bus, *GROUPS):
            yield


@pytest.mark.usefixtures("answering")
async def test_each_of_many_sockets_is_answered_and_none_hears_another(gateway: Gateway, tables: Tables) -> None:
    clients = []
    for number in range(SOCKETS):
        agent, user, organization = uuid7(), f"user-{number // 2}", ("acme", "umbrella")[number % 2]
        await tables.execute("INSERT INTO agents VALUES ($1, $2, $3, 'Echo')", organization, agent, user)
        clients.append(Client(make_token(SECRET, user=user, organization=organization), agent))
    async with Crowd(gateway.url, clients) as crowd:
        tally = await crowd.talk(MESSAGES, SECONDS)
    assert (tally.crossed, tally.errors, tally.closed) == (0, [], 0)
    assert (len(tally.said), tally.lost, tally.repeated) == (MESSAGES, 0, 0)
    assert all(0 < said.queued <= said.answered for said in tally.said.values())
