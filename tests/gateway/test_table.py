"""What every endpoint of the table does alike."""

import pytest

from gateway.endpoints.api import Endpoint
from gateway.endpoints.dispatch import MAX_BODY
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.objects import Scene, content_of, every, nowhere
from tests.gateway.test_problems import assert_problem

DEEP = b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"


@pytest.fixture
def acme(gateway: Gateway, tables: Tables) -> Scene:
    return Scene(gateway, tables, "acme")


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: endpoint.token and bool(endpoint.takes)))
async def test_a_body_has_bounds(endpoint: Endpoint, path: str, admin: Client, tables: Tables) -> None:
    before, url = await tables.everything(), nowhere(path)
    for content_type in endpoint.takes:
        for body, status in ((DEEP, 422), (b" " * (MAX_BODY + 1), 413), (b"{", 400)):
            answer = await admin.send(endpoint.method, url, body, content_type=content_type)
            assert_problem(answer, status, url)
    assert_problem(await admin.send(endpoint.method, url, b"{}", content_type="text/csv"), 415, url)
    assert await tables.everything() == before


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: bool(endpoint.takes) and not endpoint.token))
async def test_a_body_from_nobody_in_particular_breaks_nothing(
    endpoint: Endpoint, path: str, gateway: Gateway, tables: Tables
) -> None:
    before = await tables.everything()
    for content_type in endpoint.takes:
        for body in (DEEP, b" " * (MAX_BODY + 1), b"{"):
            answer = await gateway.bearer("").send(endpoint.method, nowhere(path), body, content_type=content_type)
            assert 400 <= answer.status < 500, answer
    assert await tables.everything() == before


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: endpoint.is_idempotent))
async def test_a_key_makes_every_post_one(endpoint: Endpoint, path: str, acme: Scene, tables: Tables) -> None:
    url = await acme.url(path)
    content_type, body = await content_of(endpoint, acme)

    async def post(key: str) -> tuple[int, object, bool]:
        headers = {"Idempotency-Key": key}
        answer = await acme.owner.send("POST", url, body, content_type=content_type, headers=headers)
        return answer.status, answer.body, "Idempotency-Replayed" in answer.headers

    status, first, replayed = await post("key-1")
    assert (status, replayed) == (endpoint.status, False)
    before = await tables.everything()
    assert await post("key-1") == (status, first, True)
    assert await tables.everything() == before


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: bool(endpoint.roles)))
async def test_who_has_not_the_role_is_refused(endpoint: Endpoint, path: str, ann: Client, tables: Tables) -> None:
    assert "user" not in endpoint.roles
    before = await tables.everything()
    assert_problem(await ann.send(endpoint.method, nowhere(path), b"{}"), 403, nowhere(path))
    assert await tables.everything() == before


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: endpoint.token and bool(endpoint.path_ids)))
async def test_what_is_no_id_is_not_found(endpoint: Endpoint, path: str, acme: Scene) -> None:
    content_type, body = await content_of(endpoint, acme)
    url = path.format_map(dict.fromkeys(endpoint.path_ids, "not-an-id"))
    assert_problem(await acme.owner.send(endpoint.method, url, body, content_type=content_type), 404, url)
    url = nowhere(path)
    assert_problem(await acme.owner.send(endpoint.method, url, body, content_type=content_type), 404, url)
