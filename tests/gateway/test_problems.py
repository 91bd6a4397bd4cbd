"""How a request fails: RFC 9457, whatever the reason, and nothing stored."""

import asyncio
from http import HTTPStatus

import pytest
import structlog

from eventbus import EventBus, WrongVersion
from gateway.endpoints.dispatch import MAX_BODY
from handlers.lead import service
from tests.gateway.client import Answer, Client, Gateway, say
from tests.gateway.conftest import Tables


def assert_problem(answer: Answer, status: int, instance: str) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    expected = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "instance": instance}
    assert expected.items() <= answer.body.items()
    assert isinstance(answer.body["detail"], str)
    assert answer.body["correlationId"] == answer.headers["X-Correlation-Id"]
    assert ("errors" in answer.body) == (status == 422)


NESTED = {depth: b'{"name": ' + b"[" * depth + b"]" * depth + b"}" for depth in (500, 10_000, 100_000)}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": "Lea", "score": NaN}', 400),
        (b'{"name": "Lea"} x', 400),
        (NESTED[500], 422),
        (NESTED[10_000], 422),
        (NESTED[100_000], 422),
        (b"[1, 2]", 422),
    ],
    ids=range(10),
)
async def test_what_is_not_json_is_400(body: bytes, status: int, ann: Client, tables: Tables) -> None:
    assert_problem(await ann.send("POST", "/api/leads", body), status, "/api/leads")
    assert await tables.count("leads") == 0


@pytest.mark.parametrize("path", ["/api/leads", "/crm/leads", "/api/tasks"])
async def test_a_body_of_2_mib_is_413(path: str, ann: Client, tables: Tables) -> None:
    body = b'{"name": "' + b"x" * 2 * MAX_BODY + b'"}'
    assert_problem(await ann.send("POST", path, body), 413, path)
    assert await tables.count("leads") == 0


async def test_a_body_that_does_not_say_how_long_it_is_is_413_as_well(ann: Client, gateway: Gateway) -> None:
    async def chunks() -> object:
        for _ in range(40):
            yield b" " * (MAX_BODY // 20)

    headers = {"Authorization": f"Bearer {ann.token}", "Content-Type": "application/json"}
    async with gateway.session.post(f"{gateway.url}/api/leads", data=chunks(), headers=headers) as response:
        assert response.status == 413


async def test_one_byte_below_the_limit_is_read(ann: Client) -> None:
    body = b'{"name": "Lea"}'.ljust(MAX_BODY)
    assert (await ann.send("POST", "/api/leads", body)).status == 201
    assert (await ann.send("POST", "/api/leads", body + b" ")).status == 413


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data", "json", None])
async def test_another_content_type_is_415(content_type: str | None, ann: Client, tables: Tables) -> None:
    answer = await ann.send("POST", "/api/leads", b'{"name": "Lea"}', content_type=content_type)
    assert_problem(answer, 415, "/api/leads")
    assert await tables.count("leads") == 0


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.acme+json"])
async def test_json_by_any_of_its_names_is_read(content_type: str, ann: Client) -> None:
    assert (await ann.send("POST", "/api/leads", b'{"name": "Lea"}', content_type=content_type)).status == 201


async def test_a_path_that_is_not_there_is_404(ann: Client) -> None:
    for path in ("/", "/api", "/api/leads/", "/api/leads/a/b/c", "/crm/funnels"):
        assert_problem(await ann.get(path), 404, path)
    assert_problem(await ann.get("/api/leads/not-an-id"), 404, "/api/leads/not-an-id")


async def test_a_method_that_is_not_there_is_405(ann: Client) -> None:
    answer = await ann.send("PUT", "/api/leads")
    assert_problem(answer, 405, "/api/leads")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


async def test_validation_names_every_fault(ann: Client) -> None:
    answer = await ann.post("/api/leads", {"email": "x", "phone": "y", "z": 1})
    assert_problem(answer, 422, "/api/leads")
    assert sorted(error["loc"][1] for error in answer.body["errors"]) == ["email", "phone", "z"]


async def test_the_unexpected_is_logged_and_not_told(
    ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise RuntimeError("the secret is 42")

    monkeypatch.setattr(service, "create", fail)
    with structlog.testing.capture_logs() as logs:
        answer = await ann.post("/api/leads", {"name": "Lea"})
    assert_problem(answer, 500, "/api/leads")
    assert "secret" not in str(answer)
    [line] = [line for line in logs if line["event"] == "request failed"]
    assert str(line["exc_info"]) == "the secret is 42"


async def test_who_loses_to_another_request_may_try_again(
    ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_arguments: object) -> None:
        raise WrongVersion("lead 'x' of 'acme'", 1, 2)

    monkeypatch.setattr(service, "create", lose)
    answer = await ann.post("/api/leads", {"name": "Lea"})
    assert_problem(answer, 503, "/api/leads")
    assert answer.headers["Retry-After"] == "1"


async def test_a_failure_behind_the_effect_stores_nothing(
    ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = service.create

    async def fail_late(*arguments: object) -> None:
        await create(*arguments)  # type: ignore[arg-type]
        raise RuntimeError

    monkeypatch.setattr(service, "create", fail_late)
    assert (await ann.post("/api/leads", {"name": "Lea"}, Idempotency_Key="k")).status == 500
    assert [await tables.count(table) for table in ("leads", "eventbus_outbox", "idempotency_keys")] == [0, 0, 0]


async def test_a_request_that_takes_too_long_is_503(
    ann: Client, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = service.create

    async def stall(*arguments: object) -> None:
        await create(*arguments)  # type: ignore[arg-type]
        await asyncio.sleep(60)

    monkeypatch.setattr(service, "create", stall)
    monkeypatch.setattr("gateway.endpoints.dispatch.DEADLINE", 0.2)
    answer = await ann.post("/api/leads", {"name": "Lea"})
    assert_problem(answer, 503, "/api/leads")
    assert int(answer.headers["Retry-After"]) > 0
    assert await tables.count("leads") == 0


async def test_a_pool_that_is_used_up_is_503(bus: EventBus, ann: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.TaskGroup() as tasks:
        free = asyncio.Event()

        async def hold(taken: asyncio.Event) -> None:
            async with bus.transaction():
                taken.set()
                await free.wait()

        held = [asyncio.Event() for _ in range(10)]
        for taken in held:
            tasks.create_task(hold(taken))
        for taken in held:
            await taken.wait()
        monkeypatch.setattr("eventbus.postgres.database.ACQUIRE_TIMEOUT", 0.2)  # short, now that all are taken
        assert_problem(await ann.get("/api/leads"), 503, "/api/leads")
        free.set()
    assert (await ann.get("/api/leads")).status == 200


async def test_an_expectation_that_is_not_known_is_417(gateway: Gateway) -> None:
    request = "POST /api/leads HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    answer = await say(gateway, request)
    assert answer.startswith(b"HTTP/1.1 417 ")
    assert b"X-Correlation-Id" in answer
