"""The AsyncAPI document: valid by the specification's own schema, and saying what types and groups say.

schemas/asyncapi-3.0.0.json.gz is `schemas/3.0.0-without-$id.json` of the npm package @asyncapi/specs 6.11.1, under
Apache-2.0: the schema that AsyncAPI's own parser checks documents with.
"""

import gzip
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from pydantic import BaseModel, Field

from eventbus import Context, Event, Group
from eventbus.event import event_class, event_types
from eventbus.operating.asyncapi import document
from handlers import GROUPS

SCHEMA = Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json.gz"


class Shipped(Event, type="asyncapi_test.shipped"):
    """A parcel is on its way.

    To somebody."""

    parcel_id: str
    weight: float | None = None


class Lost(Event, type="asyncapi_test.lost"):
    parcel_id: str


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Fed(Event, type="asyncapi_test.fed"):
    animal: Annotated[Cat | Dog, Field(discriminator="kind")]


class Odd(Event, type="asyncapi_test.odd"):
    what: type


TYPES = ["asyncapi_test.shipped", "asyncapi_test.lost"]


def group() -> Group:
    post = Group("post", concurrency=3)

    @post.on(Shipped)
    async def deliver(event: Shipped, ctx: Context) -> None: ...

    return post


@pytest.fixture(scope="module")
def schema() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(gzip.decompress(SCHEMA.read_bytes())))


def faults(schema: jsonschema_rs.Validator, told: Any) -> list[str]:
    return [f"{list(fault.instance_path)}: {fault.message[:200]}" for fault in schema.iter_errors(told)]


def test_the_application_is_described_as_the_specification_wants_it(schema: jsonschema_rs.Validator) -> None:
    ours = [name for name in event_types() if event_class(name).__module__.startswith(("handlers.", "eventbus."))]
    assert faults(schema, document(GROUPS, title="crm", release="1.0", types=ours)) == []


def test_unions_with_a_tag_are_described_as_the_specification_wants_them(schema: jsonschema_rs.Validator) -> None:
    told = document([], title="zoo", release="1.0", types=[Fed.event_type])
    assert faults(schema, told) == []
    assert told["components"]["schemas"]["Fed"]["properties"]["animal"]["discriminator"] == "kind"


def test_the_schema_finds_what_is_wrong(schema: jsonschema_rs.Validator) -> None:
    told = document([group()], title="post", release="1.0", types=TYPES)
    told["operations"]["post.asyncapi_test"]["action"] = "handle"
    assert len(faults(schema, told)) == 1


def test_streams_types_and_groups_are_what_they_are() -> None:
    told = document([group()], title="post", release="1.2", types=TYPES)
    assert told["info"] == {"title": "post", "version": "1.2"}
    assert list(told["channels"]) == ["asyncapi_test"]
    assert set(told["channels"]["asyncapi_test"]["messages"]) == set(TYPES)
    [(name, operation)] = told["operations"].items()
    assert (name, operation["action"]) == ("post.asyncapi_test", "receive")
    assert operation["messages"] == [{"$ref": "#/channels/asyncapi_test/messages/asyncapi_test.shipped"}]
    assert operation["x-eventbus"]["concurrency"] == 3


def test_a_message_has_attributes_and_a_payload_by_the_names_on_the_wire() -> None:
    told = document([], title="post", release="1.0", types=TYPES)["components"]
    shipped = told["messages"]["asyncapi_test.shipped"]
    assert (shipped["title"], shipped["summary"]) == ("Shipped", "A parcel is on its way.")
    assert "summary" not in told["messages"]["asyncapi_test.lost"]
    assert shipped["headers"]["allOf"][1]["properties"] == {"type": {"const": "asyncapi_test.shipped"}}
    assert shipped["payload"] == {"$ref": "#/components/schemas/Shipped"}
    assert set(told["schemas"]["Shipped"]["properties"]) == {"parcelId", "weight"}
    assert told["schemas"]["Shipped"]["required"] == ["parcelId"]


def test_every_registered_type_and_every_group_is_told() -> None:
    told = document(GROUPS, title="crm", release="1.0")
    assert {name for channel in told["channels"].values() for name in channel["messages"]} == set(event_types())
    handled = {
        (operation["x-eventbus"]["group"], message["$ref"].rpartition("/")[2])
        for operation in told["operations"].values()
        for message in operation["messages"]
    }
    assert handled == {(group.name, name) for group in GROUPS for name in group.handlers}


def test_what_json_schema_cannot_say_keeps_nobody_from_being_described(schema: jsonschema_rs.Validator) -> None:
    told = document([], title="odd", release="1.0", types=["asyncapi_test.lost", "asyncapi_test.odd"])
    assert faults(schema, told) == []
    assert "no JSON Schema" in told["components"]["messages"]["asyncapi_test.odd"]["payload"]["description"]
    assert "Lost" in told["components"]["schemas"]


def test_a_message_tells_its_version_and_the_oldest_that_is_read(schema: jsonschema_rs.Validator) -> None:
    class Sorted(Event, type="asyncapi_test.sorted", version=3):
        shelf: str

    Sorted.upcast(from_version=2)(lambda data: data)
    told = document([], title="post", release="1.0", types=[*TYPES, "asyncapi_test.sorted"])
    assert faults(schema, told) == []
    versions = {name: message["x-eventbus"] for name, message in told["components"]["messages"].items()}
    assert versions["asyncapi_test.shipped"] == {"version": 1, "opensFrom": 1}
    assert versions["asyncapi_test.sorted"] == {"version": 3, "opensFrom": 2}
    assert told["components"]["schemas"]["Envelope"]["properties"]["version"]["default"] == 1
