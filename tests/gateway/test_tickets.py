"""/api/ws-tickets: in once, for half a minute, at any gateway."""

import asyncio
import logging
import time
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any

import pytest
import structlog

from eventbus import EventBus
from gateway.callers import tickets
from gateway.callers.auth import make_token
from tests.gateway.client import SECRET, Client, Gateway, running
from tests.gateway.conftest import Tables
from tests.gateway.test_websocket import closed, receive


async def buy(client: Client) -> Any:
    answer = await client.post("/api/ws-tickets")
    assert answer.status == 201, answer
    return answer.body


def enter(gateway: Gateway, ticket: str) -> Any:
    return gateway.session.ws_connect(f"{gateway.url}/ws/chat", params={"ticket": ticket})


async def code_of(gateway: Gateway, ticket: str) -> int:
    """What a socket is closed with; 0 if it is let in."""
    async with enter(gateway, ticket) as socket:
        first = await socket.receive()
        return socket.close_code or 0 if first.type.name != "TEXT" else 0


async def test_a_ticket_lets_in_once(ann: Client, gateway: Gateway) -> None:
    bought = await buy(ann)
    assert sorted(bought) == ["expiresAt", "expiresIn", "ticket"]
    assert bought["expiresIn"] == 30
    async with enter(gateway, bought["ticket"]) as socket:
        assert (await receive(socket))["type"] == "connected"
    async with enter(gateway, bought["ticket"]) as socket:
        assert await closed(socket) == 4401


async def test_of_many_who_come_with_it_at_several_gateways_one_is_let_in(
    ann: Client, bus: EventBus, gateway: Gateway
) -> None:
    async with running(bus) as other:
        for _ in range(5):
            ticket = (await buy(ann))["ticket"]
            codes = await asyncio.gather(*(code_of(where, ticket) for where in (gateway, other) for _ in range(4)))
            assert sorted(codes) == [0] + [4401] * 7


async def test_a_ticket_is_its_buyers(ann: Client, bus: EventBus, gateway: Gateway) -> None:
    """Organization, user, roles, tier and the end of the token."""
    bob = Client(
        gateway.session,
        gateway.url,
        make_token(SECRET, user="bøb", organization="ümbrella", roles=frozenset({"admin"}), tier="premium"),
    )
    ticket = (await buy(bob))["ticket"]
    async with bus.transaction() as tx:
        caller = await tickets.redeem(tx, ticket)
    assert (caller.user, caller.organization, caller.roles, caller.tier) == (
        "bøb",
        "ümbrella",
        frozenset({"admin"}),
        "premium",
    )
    assert 3500 < caller.until - time.time() <= 3600


@pytest.mark.parametrize(
    "ticket",
    [
        "",
        ".",
        "nonsense",
        "YWNtZQ.never-sold",
        "YWNtZQ",
        "YWNtZQ.",
        "ÿ.x",
        "/w.x",
        urlsafe_b64encode(b"a\0b").decode() + ".x",
        "YWNtZQ." + "x" * 2000,
    ],
)
async def test_what_was_never_sold_is_refused(ticket: str, gateway: Gateway) -> None:
    assert await code_of(gateway, ticket) == 4401


async def test_a_ticket_is_too_old_after_its_time(
    ann: Client, gateway: Gateway, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "LIFETIME", timedelta(seconds=-1))
    ticket = (await buy(ann))["ticket"]
    assert await code_of(gateway, ticket) == 4401
    await buy(ann)
    await buy(ann)
    assert await tables.count("ws_tickets") == 1, "expired ones are cleared away by those that follow"


async def test_a_ticket_is_no_better_than_its_token(ann: Client, gateway: Gateway, tables: Tables) -> None:
    ticket = (await buy(ann))["ticket"]
    await tables.execute("UPDATE ws_tickets SET token_until = $1", int(time.time()) - 1)
    assert await code_of(gateway, ticket) == 4401


async def test_another_organizations_secret_is_no_ticket(ann: Client, stranger: Client, gateway: Gateway) -> None:
    mine, theirs = (await buy(ann))["ticket"], (await buy(stranger))["ticket"]
    mixed = mine.partition(".")[0] + "." + theirs.partition(".")[2]
    assert await code_of(gateway, mixed) == 4401
    assert await code_of(gateway, mine) == 0


async def test_a_ticket_needs_a_token(gateway: Gateway) -> None:
    assert (await gateway.bearer("").post("/api/ws-tickets")).status == 401


async def test_no_ticket_reaches_a_log_or_a_table(
    ann: Client, gateway: Gateway, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logs:
        ticket = (await buy(ann))["ticket"]
        stored = str([dict(row) for row in await tables.fetch("SELECT * FROM ws_tickets ORDER BY 1, 2, 3")])
        for _ in range(2):
            await code_of(gateway, ticket)
        offered = gateway.session.ws_connect(f"{gateway.url}/ws/chat", protocols=["bearer", ann.token])
        async with offered as socket:
            await closed(socket)
    assert "acme" in stored
    for secret in (ticket.partition(".")[2], ann.token, ann.token.split(".")[2]):
        assert secret not in str(logs) + caplog.text + stored
