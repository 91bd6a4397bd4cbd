"""The table of endpoints, read from signatures."""

from uuid import UUID

import pytest
from aiohttp import web
from pydantic import BaseModel

from eventbus import ConfigurationError
from gateway.callers.auth import Caller
from gateway.endpoints.api import Call, Routes
from gateway.routes import ENDPOINTS
from handlers.common.fields import Query, Request


class Body(Request):
    pass


class Filter(Query):
    pass


class Thing(BaseModel):
    id: int


def test_a_signature_says_what_an_endpoint_takes_and_answers() -> None:
    routes = Routes("/things", "/objects")

    @routes.post("/{thing_id}/turn", also=("/turn/{thing_id}",), status=201, location="/things/{id}")
    async def turn(call: Call, thing_id: UUID, query: Filter, body: Body) -> Thing:
        """Turn a thing.

        All the way."""
        raise NotImplementedError

    [endpoint] = routes.endpoints
    assert endpoint.paths == ("/things/{thing_id}/turn", "/objects/{thing_id}/turn", "/turn/{thing_id}")
    assert (endpoint.method, endpoint.status, endpoint.path_ids) == ("POST", 201, ("thing_id",))
    assert (endpoint.query, endpoint.body, endpoint.answer) == (Filter, Body, Thing)
    assert (endpoint.summary, endpoint.operation) == ("Turn a thing.", turn)


def test_no_content_has_no_answer() -> None:
    routes = Routes("/things")

    @routes.delete("/{thing_id}")
    async def drop(call: Call, thing_id: UUID) -> None:
        """Drop a thing."""

    assert (routes.endpoints[0].answer, routes.endpoints[0].status) == (None, 204)


@pytest.mark.parametrize("path", ["", "/{other_id}", "/{thing_id}/{other_id}"])
def test_a_signature_that_does_not_fit_its_path_is_an_error_at_import(path: str) -> None:
    async def get(call: Call, thing_id: UUID) -> Thing:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="must take"):
        Routes("/things").get(path)(get)


def test_every_endpoint_can_be_documented() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(set(names)) == len(names)
    for endpoint in ENDPOINTS:
        assert endpoint.summary, endpoint.operation
        for status, contents in endpoint.answers.items():
            assert endpoint.raw or (not contents) == (status == 204)
        assert endpoint.status not in {201, 202} or endpoint.location or endpoint.name == "create_ticket"


def test_what_answers_by_itself_says_what_it_takes_and_answers() -> None:
    routes = Routes("/things")

    @routes.raw("PUT", takes={"text/csv": str}, answers={200: {"application/json": Thing}, 207: {}}, problems={415})
    async def fill(request: web.Request, caller: Caller) -> web.Response:
        """Fill in things."""
        raise NotImplementedError

    [endpoint] = routes.endpoints
    assert (endpoint.raw, endpoint.token, endpoint.status) == (True, True, 200)
    assert endpoint.takes == {"text/csv": str}
    assert set(endpoint.answers) == {200, 207}


@pytest.mark.parametrize("token", [True, False])
def test_a_raw_signature_knows_its_caller_just_if_there_is_one(token: bool) -> None:
    async def known(request: web.Request, caller: Caller) -> web.Response:
        raise NotImplementedError

    async def unknown(request: web.Request) -> web.Response:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="must take"):
        Routes("/things").raw("GET", token=token)(unknown if token else known)


def test_the_table_knows_with_what_an_endpoint_may_refuse() -> None:
    routes = Routes("/things")

    @routes.get()
    async def page(call: Call) -> Thing:
        raise NotImplementedError

    @routes.patch("/{thing_id}", problems={409}, roles=frozenset({"admin"}))
    async def change(call: Call, thing_id: UUID, body: Body) -> Thing:
        raise NotImplementedError

    @routes.post("/{thing_id}/turn")
    async def turn(call: Call, thing_id: UUID) -> Thing:
        raise NotImplementedError

    @routes.raw("POST", "/inbox", token=False, problems={401})
    async def take_in(request: web.Request) -> web.Response:
        raise NotImplementedError

    for_all = {401, 429, 503}
    assert [set(endpoint.problems) for endpoint in routes.endpoints] == [
        for_all,
        for_all | {403, 404, 400, 413, 415, 422, 409},
        for_all | {404, 400, 409, 413, 422},
        {401},
    ]
