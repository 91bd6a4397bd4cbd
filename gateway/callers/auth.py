"""Who is calling: a JSON Web Token, checked as RFC 8725 says.

The algorithm is fixed by the key, never taken from the token; `exp`, `iss` and `aud` must be there and right. Why a
token was refused is not told in detail: it helps nobody who has a right to come in.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

import jwt
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from eventbus import ConfigurationError, Unavailable
from eventbus.process.safe_logging import get_logger
from gateway.http.problems import Problem
from handlers.common.fields import UserId

ISSUER = AUDIENCE = "eventbus"
REFRESH_PAUSE = 10.0  # seconds between two fetches for an unknown key: anybody can make up a token that names one
KEYS_LIFETIME = 300.0  # seconds until withdrawn keys are forgotten
JWKS_TIMEOUT = 5  # seconds
REMEMBERED = 1_024  # tokens
FOR_EVER = 2**53  # seconds since the epoch; the largest whole number that JSON carries everywhere

log = get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request. Everything that he sees and does is within his organization.

    `until`: when his token expires, in seconds since the epoch. A socket that is still open then is closed."""

    user: str
    organization: str
    roles: frozenset[str] = frozenset({"user"})
    tier: str = "standard"
    until: int = FOR_EVER


class Claims(BaseModel):
    """What a token says about its bearer, beside what PyJWT checks."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    sub: UserId
    org: UserId
    roles: list[Literal["user", "admin", "system"]] = ["user"]
    tier: Literal["standard", "premium"] = "standard"


class Keys(Protocol):
    """Where the key of a token comes from, and which algorithms it is good for."""

    algorithms: list[str]

    @property
    def generation(self) -> int:
        """Changes as soon as a key may have been withdrawn: tokens that were checked before are then checked again.
        -1: every token is checked again."""

    async def key_of(self, token: str) -> "jwt.PyJWK | str":
        """The key of this token. Raises jwt.PyJWTError if there is none, Unavailable if it cannot be fetched now."""


class SharedSecret:
    """HS256."""

    algorithms = ["HS256"]  # noqa: RUF012 - Keys is a protocol of instances
    generation = 0

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def key_of(self, token: str) -> str:  # noqa: ARG002 - one key for all
        return self._secret


class PublishedKeys:
    """RS256 and ES256, with the public keys behind a URL."""

    algorithms = ["RS256", "ES256"]  # noqa: RUF012

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=JWKS_TIMEOUT)
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._fetches = 0
        self._fetching = asyncio.Lock()

    @property
    def generation(self) -> int:
        """How often the keys were fetched; -1 once they are too old to be used without a fetch."""
        return self._fetches if time.monotonic() - self._fetched_at <= KEYS_LIFETIME else -1

    async def key_of(self, token: str) -> jwt.PyJWK:
        key_id = str(jwt.get_unverified_header(token).get("kid", ""))
        async with self._fetching:
            age = time.monotonic() - self._fetched_at
            if age > (KEYS_LIFETIME if key_id in self._keys else REFRESH_PAUSE):
                await self._fetch()
        try:
            return self._keys[key_id]
        except KeyError:
            raise jwt.InvalidKeyError("no such key") from None

    async def _fetch(self) -> None:
        try:
            found = await asyncio.to_thread(self._client.get_signing_keys)  # urllib: it blocks
        except jwt.PyJWKClientConnectionError as error:
            raise Unavailable(f"JWKS at {self._url}", str(error)) from error
        except jwt.PyJWTError as error:
            log.warning("keys for tokens cannot be fetched", url=self._url, reason=str(error))
            found = []
        self._keys = {key.key_id: key for key in found if key.key_id}
        self._fetched_at = time.monotonic()
        self._fetches += 1


class _Known(NamedTuple):
    """A good token's caller. `since`: when it was checked, by time.time(); `generation`: that of the keys then."""

    caller: Caller
    since: float
    generation: int


class Authenticator:
    """From a token to its caller. Good tokens are remembered: a signature stays good until the token expires or its
    key is withdrawn."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: dict[str, _Known] = {}

    async def caller_of(self, request: web.Request) -> Caller:
        """The caller by the Authorization header. Raises Problem(401), or Unavailable if keys cannot be fetched."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _refused("send a token: Authorization: Bearer …", "Bearer")
        if not token.isascii():  # of bytes that are no UTF-8, aiohttp makes text that nobody can encode
            raise _refused("the token is not valid")
        return self._remembered(token) or await self._check(token)

    async def caller(self, token: str) -> Caller:
        """The caller by this token. Raises as `caller_of`."""
        return self._remembered(token) or await self._check(token)

    def _remembered(self, token: str) -> Caller | None:
        known = self._known.get(token)
        if (
            known is not None
            and known.since <= time.time() < known.caller.until
            and known.generation == self._keys.generation != -1
        ):
            return known.caller
        return None

    async def _check(self, token: str) -> Caller:
        began = time.time()
        try:
            key = await self._keys.key_of(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=self._keys.algorithms,
                issuer=ISSUER,
                audience=AUDIENCE,
                options={"require": ["exp", "iss", "aud", "sub", "org"]},
            )
            caller = _caller(claims, min(int(claims["exp"]), FOR_EVER))
        except jwt.ExpiredSignatureError:
            raise _refused("the token has expired") from None
        except (jwt.PyJWTError, ValidationError) as error:
            log.info("token refused", reason=type(error).__name__)
            raise _refused("the token is not valid") from None
        self._remember(token, _Known(caller, began, self._keys.generation))
        return caller

    def _remember(self, token: str, known: _Known) -> None:
        self._known.pop(token, None)
        self._known[token] = known
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]


def make_token(
    secret: str,
    *,
    user: str,
    organization: str,
    roles: frozenset[str] = frozenset({"user"}),
    tier: str = "standard",
    ttl: timedelta = timedelta(hours=1),
) -> str:
    """A token as `Authenticator` wants it, for tests, the demo and `eventbus token`.

    Raises ConfigurationError for a role, tier, user or organization that no gateway would take."""
    now = datetime.now(UTC)
    claims: dict[str, object] = {"sub": user, "org": organization, "roles": sorted(roles), "tier": tier}
    try:
        _caller(claims)
    except ValidationError as error:
        faults = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"no gateway would take this token: {faults}") from None
    claims |= {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + ttl}
    return jwt.encode(claims, secret, algorithm="HS256")


def _caller(claims: object, until: int = FOR_EVER) -> Caller:
    """Raises pydantic's ValidationError."""
    checked = Claims.model_validate(claims)
    return Caller(checked.sub, checked.org, frozenset(checked.roles), checked.tier, until)


def _refused(detail: str, challenge: str = 'Bearer error="invalid_token"') -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
