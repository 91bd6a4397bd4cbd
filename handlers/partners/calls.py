"""Calls to services outside of the house, by HTTP: bounded in time and size, and each failure told by its kind.

answered 2xx           the answer
408, 425, 429, 503     Unreachable, or RetryLater if the service says when: the same request may succeed later
no connection          Unreachable
another 5xx            Unanswered, an Unreachable; RetryLater if the service says when
no answer in time      Unanswered
any other status       Declined, a Reject: the same request will be refused again

After Unanswered nobody knows whether the request has had its effect; after the other failures, it has not.

Redirects are not followed: the address was configured, and what is sent holds secrets and people's data.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
import orjson
from yarl import URL

from eventbus import Reject, Resource, RetryLater, Use
from handlers.common.fields import CONTROL

TIMEOUT = 10.0  # seconds, for all of a call
MAX_ANSWER = 1024 * 1024  # bytes
QUOTED = 200  # characters of a refusal that its dead letter repeats
LONGEST_WAIT = 3600.0  # seconds: a service that asks for more is asked again after that
TRY_AGAIN = frozenset({408, 425, 429})


class Unreachable(Exception):
    """The service is away, too slow or too busy: the same request may succeed later."""


class Unanswered(Unreachable):
    """The request went out and nothing came back that says what became of it. It may have had its effect."""


class Declined(Reject):
    """The service refused this request, and would refuse it again."""

    def __init__(self, reason: str, answer: "Answer") -> None:
        super().__init__(reason)
        self.answer = answer


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Raises Unreachable for a body that is no JSON: it came from something in between, such as a proxy's page."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise Unreachable(f"the answer is no JSON: {quote(self.body)!r}") from None

    def content(self) -> Any:
        """As `json`, but None for a body that is no JSON: for an answer whose status alone counts."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


async def _open(_use: Use) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


HTTP = Resource("HTTP", asynccontextmanager(_open))


async def call(
    session: aiohttp.ClientSession,
    service: str,
    method: str,
    url: str | URL,
    *,
    json: object = None,
    body: bytes | None = None,
    headers: Mapping[str, str] = {},
    timeout: float = TIMEOUT,
    hide: str = "",
    **options: Any,
) -> Answer:
    """Send one request with `json` or `body`. `service` names the other side in messages, since its URL may hold a
    secret; `hide` is that secret, replaced by *** where a refusal repeats it; `options` are aiohttp's.

    Raises Unreachable, Unanswered, RetryLater, Reject, Declined: see the module."""
    sent = dict(headers)
    if json is not None:
        body = orjson.dumps(json)
        sent.setdefault("Content-Type", "application/json")
    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with session.request(
            method, url, data=body, headers=sent, timeout=limit, allow_redirects=False, **options
        ) as response:
            answer = Answer(response.status, response.headers, await _read(response))
    except TimeoutError:
        raise Unanswered(f"{service} has not answered within {timeout:g} s") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise Reject(f"{service}: its URL is none that can be called") from None
    except aiohttp.ClientConnectorError as error:
        raise Unreachable(f"{service} is away: {type(error).__name__}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"{service} has broken off: {type(error).__name__}") from None
    return _judge(service, answer, hide)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; of a longer one, MAX_ANSWER bytes and one more."""
    try:
        return await response.content.readexactly(MAX_ANSWER + 1)
    except asyncio.IncompleteReadError as whole:
        return whole.partial


def _judge(service: str, answer: Answer, hide: str) -> Answer:
    status, said = answer.status, quote(answer.body, hide)
    if 200 <= status < 300:
        if len(answer.body) > MAX_ANSWER:
            raise Reject(f"{service} answered with more than {MAX_ANSWER} bytes")
        return answer
    reason = f"{service} answered {status}" + (f": {said}" if said else "")
    if status not in TRY_AGAIN and status < 500:
        raise Declined(reason, answer)
    wait = retry_after(answer.headers)
    if wait is not None:
        raise RetryLater(wait, reason)
    raise (Unreachable if status in TRY_AGAIN or status == 503 else Unanswered)(reason)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from a Retry-After header of either form; None if there is none that makes sense."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text) if text[:1].isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None


def quote(body: bytes, hide: str = "") -> str:
    """The beginning of an answer, fit for a log line."""
    text = CONTROL.sub(" ", body[: QUOTED * 8].decode(errors="replace"))
    return (text.replace(hide, "***") if hide else text).strip()[:QUOTED]
