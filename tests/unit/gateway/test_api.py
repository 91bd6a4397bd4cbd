"""The table of endpoints, read from signatures."""

from uuid import UUID

import pytest
from pydantic import BaseModel

from eventbus import ConfigurationError
from gateway.api import Call, Routes
from gateway.routes import ENDPOINTS
from handlers.fields import Query, Request


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
    names = [endpoint.operation.__name__ for endpoint in ENDPOINTS]
    assert len(set(names)) == len(names)
    for endpoint in ENDPOINTS:
        assert endpoint.summary, endpoint.operation
        assert (endpoint.answer is None) == (endpoint.status == 204)
        assert (endpoint.location is None) == (endpoint.status not in {201, 202})
