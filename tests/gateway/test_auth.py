"""Who comes in. Every endpoint of the table is tried."""

import time
from typing import Any

import jwt
import pytest

from gateway.endpoints.api import Endpoint
from gateway.routes import ENDPOINTS
from tests.gateway.client import SECRET, Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.objects import every, nowhere


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; a change to None takes the claim away."""
    good = {"sub": "ann", "org": "acme", "iss": "eventbus", "aud": "eventbus", "exp": time.time() + 60}
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(content: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(content, secret, algorithm=algorithm)


def unsigned(content: dict[str, Any]) -> str:
    return jwt.encode(content, "", algorithm="none")


BAD = {
    "nonsense": "nonsense",
    "three parts": "a.b.c",
    "no algorithm": unsigned(claims()),
    "another algorithm": sign(claims(), SECRET * 2, "HS512"),
    "another secret": sign(claims(), "x" * 32),
    "cut": sign(claims())[:-4],
    "expired": sign(claims(exp=time.time() - 1)),
    "not yet": sign(claims(nbf=time.time() + 60)),
    "no exp": sign(claims(exp=None)),
    "no iss": sign(claims(iss=None)),
    "another iss": sign(claims(iss="somebody")),
    "no aud": sign(claims(aud=None)),
    "another aud": sign(claims(aud="somebody")),
    "no sub": sign(claims(sub=None)),
    "empty sub": sign(claims(sub=" ")),
    "odd sub": sign(claims(sub="a\u0000b")),
    "no org": sign(claims(org=None)),
    "org is no text": sign(claims(org=["acme"])),
    "unknown role": sign(claims(roles=["root"])),
    "roles are no list": sign(claims(roles="admin")),
    "roles are odd": sign(claims(roles=[["admin"]])),
    "unknown tier": sign(claims(tier="gold")),
    "odd tier": sign(claims(tier=["premium"])),
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
async def test_a_bad_token_is_refused(token: str, gateway: Gateway, tables: Tables) -> None:
    answer = await gateway.bearer(token).post("/api/leads", {"name": "Lea"})
    assert answer.status == 401, answer
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert token not in str(answer.body)
    assert await tables.count("leads") == 0


async def test_a_good_token_comes_in(gateway: Gateway) -> None:
    for token in (sign(claims()), sign(claims(aud=["eventbus", "x"], roles=["user", "system"], tier="premium"))):
        assert (await gateway.bearer(token).get("/api/leads")).status == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Token {}", "{}"])
async def test_the_header_must_be_a_bearers(value: str, gateway: Gateway, ann: Client) -> None:
    answer = await gateway.bearer("").get("/api/leads", Authorization=value.format(ann.token))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (await gateway.bearer("").get("/api/leads", Authorization=f"bearer {ann.token}")).status == 200


FREE = {"open_chat", "livez", "readyz", "get_metrics", "get_openapi", "get_asyncapi"}
FREE |= {"subscribe_whatsapp", "receive_whatsapp", "receive_telegram"}  # who sends them signs, or knows a secret


def test_who_needs_no_token_is_named_here() -> None:
    assert {endpoint.name for endpoint in ENDPOINTS if not endpoint.token} == FREE


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: endpoint.token))
async def test_no_endpoint_answers_without_a_token(endpoint: Endpoint, path: str, gateway: Gateway) -> None:
    answer = await gateway.bearer("").send(endpoint.method, nowhere(path), b"{")
    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/problem+json")
