"""Another organization's objects are not there: every endpoint with an id, every id in a body, and every list."""

import orjson
import pytest
from pydantic.alias_generators import to_camel

from gateway.endpoints.api import JSON, Endpoint
from tests.gateway.client import Gateway
from tests.gateway.conftest import Tables
from tests.gateway.objects import MAKERS, Scene, content_of, every


@pytest.fixture
def acme(gateway: Gateway, tables: Tables) -> Scene:
    return Scene(gateway, tables, "acme")


@pytest.fixture
def umbrella(gateway: Gateway, tables: Tables) -> Scene:
    return Scene(gateway, tables, "umbrella")


def _references(endpoint: Endpoint) -> list[str]:
    """The fields of its body that name objects."""
    return [] if endpoint.body is None else [name for name in endpoint.body.model_fields if name in MAKERS]


async def ask(scene: Scene, endpoint: Endpoint, url: str, content: tuple[str, bytes | None]) -> int:
    content_type, body = content
    return (await scene.owner.send(endpoint.method, url, body, content_type=content_type)).status


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: endpoint.token and bool(endpoint.path_ids)))
async def test_an_id_of_another_organization_is_not_found(
    endpoint: Endpoint, path: str, acme: Scene, umbrella: Scene, tables: Tables
) -> None:
    url, theirs, ours = await acme.url(path), await content_of(endpoint, umbrella), await content_of(endpoint, acme)
    before = await tables.everything()
    assert await ask(umbrella, endpoint, url, theirs) == 404
    assert await tables.everything() == before
    assert await ask(acme, endpoint, url, ours) < 300, "else it would be found by nobody"


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: bool(_references(endpoint))))
async def test_an_id_of_another_organization_in_a_body_is_refused(
    endpoint: Endpoint, path: str, acme: Scene, umbrella: Scene, tables: Tables
) -> None:
    assert endpoint.body is not None
    url, body = await umbrella.url(path), await umbrella.body(endpoint.body)
    for field in _references(endpoint):
        stolen = orjson.dumps(body | {to_camel(field): await acme.id_of(field)})
        before = await tables.everything()
        assert await ask(umbrella, endpoint, url, (JSON, stolen)) in {404, 422}
        assert await tables.everything() == before


def _is_list(endpoint: Endpoint) -> bool:
    return endpoint.method == "GET" and "items" in getattr(endpoint.answer, "model_fields", {})


@pytest.mark.parametrize(("endpoint", "path"), every(lambda endpoint: _is_list(endpoint) and not endpoint.path_ids))
async def test_a_list_shows_nothing_of_another_organization(
    endpoint: Endpoint, path: str, acme: Scene, umbrella: Scene
) -> None:
    for name in MAKERS:
        await acme.id_of(name)
    assert endpoint.query is not None
    filters = [name for name in endpoint.query.model_fields if name in MAKERS]
    queries = ["", "?assignedTo=root", *[f"?{to_camel(name)}={await acme.id_of(name)}" for name in filters]]
    for query in queries:
        answer = await umbrella.owner.get(path + query)
        assert (answer.status, answer.body) == (200, {"items": [], "nextCursor": None})
    assert (await acme.owner.get(path)).body["items"], "else it would show nothing to anybody"
