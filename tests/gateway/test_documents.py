"""What is served about the contract: valid, and saying neither more nor less than what is run."""

import json
from typing import Any

import orjson
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from eventbus import EventBus
from eventbus.event import event_types
from gateway.app import create_app
from gateway.endpoints.api import Endpoint
from gateway.endpoints.openapi import document
from gateway.routes import ENDPOINTS
from gateway.settings import GatewaySettings
from handlers import GROUPS
from tests.gateway.client import SECRET, Client, Gateway
from tests.gateway.objects import every
from tests.integration.commands import eventbus

METHODS = {"get", "post", "patch", "put", "delete"}


@pytest.fixture(scope="module")
def told() -> Any:
    return document(ENDPOINTS)


def test_it_is_openapi(told: Any) -> None:
    assert told["openapi"].startswith("3.1.")
    validate(told)


def operations(told: Any) -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, item in told["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


async def test_what_is_routed_is_what_is_described(told: Any, bus: EventBus) -> None:
    """Routes that are mounted beside the table would be neither described nor tried."""
    app: web.Application = create_app(bus, GatewaySettings(jwt_secret=SECRET))
    routed = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routed == operations(told).keys()


def test_every_endpoint_is_told_under_each_of_its_paths(told: Any) -> None:
    found = operations(told)
    ids = [operation["operationId"] for operation in found.values()]
    assert len(set(ids)) == len(ids)
    for endpoint in ENDPOINTS:
        for path in endpoint.paths:
            operation = found[endpoint.method, path]
            assert operation["operationId"].startswith(endpoint.name)
            assert {int(status) for status in operation["responses"]} == endpoint.problems | set(endpoint.answers)
            assert operation["security"] == ([{"token": []}] if endpoint.token else [])
            names = {parameter.get("name") for parameter in operation["parameters"]}
            assert set(endpoint.path_ids) <= names
            if endpoint.query is not None:
                assert {field.alias or name for name, field in endpoint.query.model_fields.items()} <= names
            assert set(operation.get("requestBody", {}).get("content", {})) == set(endpoint.takes)
            assert operation["summary"]


@pytest.mark.parametrize(
    ("endpoint", "path"), every(lambda endpoint: endpoint.example is not None and not endpoint.path_ids)
)
async def test_an_example_would_do(endpoint: Endpoint, path: str, admin: Client) -> None:
    kind = next(iter(endpoint.takes))
    answer = await admin.send(endpoint.method, path, orjson.dumps(endpoint.example), content_type=kind)
    assert answer.status == endpoint.status, answer


async def test_what_is_served_is_what_the_commands_print(gateway: Gateway) -> None:
    nobody = gateway.bearer("")
    for name in ("openapi", "asyncapi"):
        served = await nobody.get(f"/{name}.json")
        assert (served.status, served.headers["Content-Type"]) == (200, "application/json")
        assert (await nobody.get(f"/{name}.json")).body == served.body
        run = eventbus(name, EVENTBUS_JWT_SECRET="")
        assert run.returncode == 0, run.stderr
        printed = json.loads(run.stdout)
        assert printed["info"] == served.body["info"]
        if name == "openapi":
            assert printed == served.body
        else:  # tests register types of their own
            assert printed["operations"] == served.body["operations"]
            assert (
                printed["channels"].items() <= {**served.body["channels"], "lead": printed["channels"]["lead"]}.items()
            )


async def test_the_bus_is_described_as_it_is(gateway: Gateway) -> None:
    served = (await gateway.bearer("").get("/asyncapi.json")).body
    assert set(served["components"]["messages"]) == set(event_types())
    assert {operation["x-eventbus"]["group"] for operation in served["operations"].values()} == {
        group.name
        for group in GROUPS
        if group.tapping is None  # who taps handles no type
    }
