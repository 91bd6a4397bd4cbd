"""Tokens that are checked with published keys."""

import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, tzinfo
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from eventbus import Unavailable
from gateway.callers import auth
from gateway.callers.auth import Authenticator, PublishedKeys, SharedSecret, make_token
from gateway.http.problems import Problem

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


class KeyServer:
    """Serves `keys`, and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [
            {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "r", "use": "sig", "alg": "RS256"},
            {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "e", "use": "sig", "alg": "ES256"},
        ]
        self.asked = 0
        self.status = 200
        self.url = ""

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys}, status=self.status)


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    app = web.Application()
    app.router.add_get("/keys", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield server
    await runner.cleanup()


def token(key: Any, algorithm: str, kid: str | None) -> str:
    claims = {"sub": "ann", "org": "acme", "iss": "eventbus", "aud": "eventbus", "exp": time.time() + 60}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


async def refused(authenticator: Authenticator, bad: str) -> None:
    with pytest.raises(Problem) as caught:
        await authenticator.caller(bad)
    assert caught.value.status == 401


async def test_both_kinds_are_taken_and_fetched_once(server: KeyServer) -> None:
    authenticator = Authenticator(PublishedKeys(server.url))
    for _ in range(3):
        assert (await authenticator.caller(token(RSA, "RS256", "r"))).user == "ann"
        assert (await authenticator.caller(token(EC, "ES256", "e"))).organization == "acme"
    assert server.asked == 1


async def test_a_public_key_is_no_secret(server: KeyServer) -> None:
    """Algorithm confusion: HS256 with what everybody knows as the key."""
    public = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, claims, _ = token(RSA, "RS256", "r").split(".")
    forged_header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT","kid":"r"}').decode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{forged_header}.{claims}".encode(), public
    )
    authenticator = Authenticator(PublishedKeys(server.url))
    await refused(authenticator, f"{forged_header}.{claims}.{jwt.utils.base64url_encode(signature).decode()}")
    await refused(authenticator, f"{header}.{claims}.")


async def test_a_key_is_good_for_its_own_algorithm_only(server: KeyServer) -> None:
    authenticator = Authenticator(PublishedKeys(server.url))
    await refused(authenticator, token(EC, "ES256", "r"))
    await refused(authenticator, token(RSA, "RS512", "r"))
    await refused(authenticator, token(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256", "r"))
    await refused(authenticator, token(RSA, "RS256", None))


async def test_made_up_keys_do_not_make_us_ask_again_and_again(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authenticator = Authenticator(PublishedKeys(server.url))
    for number in range(5):
        await refused(authenticator, token(RSA, "RS256", f"made-up-{number}"))
    assert server.asked == 1
    monkeypatch.setattr(auth, "REFRESH_PAUSE", 0.0)
    server.keys[0]["kid"] = "new"
    assert (await authenticator.caller(token(RSA, "RS256", "new"))).user == "ann"
    assert server.asked == 2


async def test_a_withdrawn_key_is_forgotten(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(PublishedKeys(server.url))
    await authenticator.caller(token(RSA, "RS256", "r"))
    server.keys.clear()
    monkeypatch.setattr(auth, "KEYS_LIFETIME", 0.0)
    monkeypatch.setattr(auth, "REFRESH_PAUSE", 0.0)
    await refused(authenticator, token(RSA, "RS256", "r"))


async def test_keys_that_are_fetched_anew_are_asked_again(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was good is remembered for as long as nobody knows that its key is gone."""
    authenticator = Authenticator(PublishedKeys(server.url))
    good = token(RSA, "RS256", "r")
    await authenticator.caller(good)
    del server.keys[0]
    assert (await authenticator.caller(good)).user == "ann"
    monkeypatch.setattr(auth, "REFRESH_PAUSE", 0.0)
    await refused(authenticator, token(RSA, "RS256", "made-up"))
    await refused(authenticator, good)


async def test_what_is_remembered_ends_with_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    authenticator = Authenticator(SharedSecret("x" * 32))
    good = make_token("x" * 32, user="ann", organization="acme", ttl=timedelta(seconds=60))
    first = await authenticator.caller(good)
    assert await authenticator.caller(good) is first
    now = time.time()
    with monkeypatch.context() as clock:
        clock.setattr("time.time", lambda: now + 61)
        clock.setattr("jwt.api_jwt.datetime", _Later)
        await refused(authenticator, good)
    with monkeypatch.context() as clock:
        clock.setattr("time.time", lambda: now - 3600)  # set back: whether it is good already is asked again
        assert await authenticator.caller(good) is not first


class _Later(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_Later":
        return cls.fromtimestamp(time.time(), tz)


async def test_a_token_that_is_nearly_a_known_one_is_checked() -> None:
    authenticator = Authenticator(SharedSecret("x" * 32))
    good = make_token("x" * 32, user="ann", organization="acme")
    await authenticator.caller(good)
    head, claims, signature = good.split(".")
    forged = jwt.utils.base64url_encode(jwt.utils.base64url_decode(claims).replace(b"ann", b"bob")).decode()
    await refused(authenticator, f"{head}.{forged}.{signature}")


async def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBERED", 2)
    authenticator = Authenticator(SharedSecret("x" * 32))
    tokens = [make_token("x" * 32, user=user, organization="acme") for user in ("ann", "bob", "cid", "bob")]
    callers = [await authenticator.caller(one) for one in tokens]
    assert [caller.user for caller in callers] == ["ann", "bob", "cid", "bob"]
    assert len(authenticator._known) == 2


async def test_a_server_that_is_away_is_no_bad_token(server: KeyServer) -> None:
    server.status = 500
    with pytest.raises(Unavailable):
        await Authenticator(PublishedKeys(server.url)).caller(token(RSA, "RS256", "r"))
