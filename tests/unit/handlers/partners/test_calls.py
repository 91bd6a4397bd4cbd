"""Calls to services: how each answer and each failure is told, against a server of the test's own."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate

import aiohttp
import pytest
from aiohttp import web

from eventbus import Reject, RetryLater
from handlers.partners.calls import MAX_ANSWER, Answer, Declined, Unanswered, Unreachable, call

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    runner = web.AppRunner(app := web.Application(), shutdown_timeout=0.1)
    app.router.add_route("*", "/{path:.*}", handler)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(status: int, text: str = "", **headers: str) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return handle


async def asked(url: str, timeout: float = 10.0) -> Answer:
    async with aiohttp.ClientSession() as session:
        return await call(session, "the CRM", "POST", url, json={"a": 1}, timeout=timeout)


async def test_an_answer() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), content_type=request.content_type, status=201)

    async with serving(echo) as url:
        answer = await asked(url)
    assert (answer.status, answer.json(), answer.headers["Content-Type"]) == (201, {"a": 1}, "application/json")


@pytest.mark.parametrize("status", [302, 400, 401, 404, 409, 422])
async def test_what_will_not_get_better_is_rejected_with_the_reason(status: int) -> None:
    async with serving(answering(status, "no\x00t so\n" + "x" * 500, Location="/elsewhere")) as url:
        with pytest.raises(Reject) as rejected:
            await asked(url)
    assert str(rejected.value).startswith(f"the CRM answered {status}: no t so")
    assert len(str(rejected.value)) < 260


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_get_better_is_tried_again(status: int) -> None:
    async with serving(answering(status)) as url:
        with pytest.raises(Unreachable, match=f"^the CRM answered {status}$") as failed:
            await asked(url)
    assert isinstance(failed.value, Unanswered) == (status in {500, 502, 504}), "else it was refused, and had no effect"


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("7", 7, 7), ("0.5", 0.5, 0.5), ("in 100 s", 90, 100), ("99999999", 3600, 3600)],
)
async def test_the_service_says_when(text: str, least: float, most: float) -> None:
    if text == "in 100 s":
        text = formatdate(time.time() + 100, usegmt=True)
    async with serving(answering(429, Retry_After=text)) as url:
        with pytest.raises(RetryLater) as later:
            await asked(url)
    assert least <= later.value.delay <= most


@pytest.mark.parametrize("text", ["soon", "-3", "", "1e999", "9" * 5000])
async def test_a_retry_after_that_makes_no_sense_is_none(text: str) -> None:
    async with serving(answering(503, Retry_After=text)) as url:
        with pytest.raises(Unreachable):
            await asked(url)


async def test_who_hangs_is_not_waited_for() -> None:
    release = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    async with serving(hang) as url:
        with pytest.raises(Unanswered, match=r"has not answered within 0\.05 s"):
            await asked(url, timeout=0.05)
        release.set()


async def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"^the CRM is away: ClientConnectorError$") as failed:
        await asked("http://127.0.0.1:1")
    assert not isinstance(failed.value, Unanswered), "nothing was sent"
    with pytest.raises(Reject, match="its URL is none"):
        await asked("gopher://secret@crm")


async def test_an_endless_answer_is_not_read() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(1000):
                await response.write(b"x" * 65536)
        except ConnectionError:
            pass
        return response

    async with serving(endless) as url:
        with pytest.raises(Reject, match=f"more than {MAX_ANSWER} bytes"):
            await asked(url)


async def test_who_hangs_up_may_have_done_it() -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with serving(hang_up) as url:
        with pytest.raises(Unanswered, match=r"^the CRM has broken off: ServerDisconnectedError$"):
            await asked(url)


async def test_a_refusal_keeps_its_answer_and_no_secret() -> None:
    async with serving(answering(404, "no s3cret here")) as url, aiohttp.ClientSession() as session:
        with pytest.raises(Declined, match=r"^the CRM answered 404: no \*\*\* here$") as declined:
            await call(session, "the CRM", "GET", url, hide="s3cret")
    assert (declined.value.answer.status, declined.value.answer.body) == (404, b"no s3cret here")


async def test_an_answer_that_is_no_json_came_from_something_in_between() -> None:
    async with serving(answering(200, "<html>sign in to the hotel network")) as url:
        answer = await asked(url)
    with pytest.raises(Unreachable, match="is no JSON: '<html>sign"):
        answer.json()
