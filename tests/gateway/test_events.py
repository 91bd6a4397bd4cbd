"""POST /api/events: CloudEvents in each of their modes, and what is refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import orjson
import pytest
import redis.asyncio

from eventbus import Envelope, Event, EventBus
from eventbus.contract.codec import decode, open_event
from gateway.endpoints.dispatch import MAX_BODY
from gateway.events.cloudevents import BATCH, MAX_BATCH, STRUCTURED
from tests.gateway.client import JSON, Answer, Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_correlation import TRACEPARENT
from tests.gateway.test_problems import assert_problem
from tests.waiting import PATIENCE

DATA = {"leadId": "lead-1", "fields": ["company"]}
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "https://crm.example.com/leads",
    "type": "lead.enrich",
    "subject": "lead-1",
    "time": "2026-01-31T12:00:00.123Z",
    "datacontenttype": "application/json",
    "data": DATA,
}


@pytest.fixture
def feed(gateway: Gateway) -> Client:
    """A system of acme."""
    return gateway.caller("importer", "acme", "system")


class Stored:
    """What is in the streams."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client

    async def envelopes(self, stream: str = "lead", lane: str = "") -> list[Envelope]:
        found: Any = await self._client.xrange(f"eb:{{{stream}}}:stream{lane}")
        return [decode(fields) for _, fields in found]

    async def keys(self) -> list[Any]:
        keys: list[Any] = await self._client.keys("*")
        return keys


@pytest.fixture
async def stored(redis_url: str) -> AsyncIterator[Stored]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield Stored(client)


async def send(caller: Client, content: object, content_type: str = STRUCTURED, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return await caller.send("POST", "/api/events", body, content_type=content_type, headers=headers)


def in_headers(event: Mapping[str, Any]) -> dict[str, str]:
    """Attributes as the client of the tests wants header names."""
    return {f"ce_{name}": str(value) for name, value in event.items() if name not in {"data", "datacontenttype"}}


async def binary(caller: Client, event: Mapping[str, Any], **headers: str) -> Answer:
    return await send(caller, event["data"], JSON, **in_headers(event), **headers)


def locations(answer: Answer) -> list[list[Any]]:
    assert_problem(answer, 422, "/api/events")
    return [error["loc"] for error in answer.body["errors"]]


async def nothing(stored: Stored, tables: Tables) -> bool:
    return await stored.keys() == [] and await tables.count("idempotency_keys") == 0


# Taken in ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["structured", "binary", "batch"])
async def test_each_mode_stores_the_event_with_its_attributes(mode: str, feed: Client, stored: Stored) -> None:
    event = EVENT | {"correlationid": "order-7", "traceparent": TRACEPARENT, "partitionkey": "p 1", "sampled": 3}
    match mode:
        case "structured":
            answer = await send(feed, event)
        case "binary":
            answer = await binary(feed, event | {"partitionkey": "p%201"})
        case _:
            answer = await send(feed, [event], BATCH)
    assert answer.status == 202, answer
    told = answer.body[0] if mode == "batch" else answer.body
    [envelope] = await stored.envelopes()
    assert told == {"eventId": envelope.id, "status": "stored"}
    if mode != "batch":
        assert answer.headers["Location"] == f"/api/events/{envelope.id}"
    assert (envelope.type, envelope.source, envelope.subject) == ("lead.enrich", EVENT["source"], "lead-1")
    assert (envelope.organization, envelope.correlation_id, envelope.traceparent) == ("acme", "order-7", TRACEPARENT)
    assert json.loads(envelope.data) == DATA | {"organizationId": "acme"}
    metadata = dict(envelope.metadata)
    assert metadata.pop("ipAddress") == "127.0.0.1"
    assert metadata == {
        "userId": "importer",
        "cloudEventId": "A-1",
        "cloudEventTime": EVENT["time"],
        "partitionkey": "p 1",
        "sampled": "3",
    }


async def test_an_event_of_the_house_comes_out_at_a_handler(
    ann: Client, feed: Client, bus: EventBus, worker: None, tables: Tables
) -> None:
    data = {"userId": "ann", "title": "Hello", "message": "from outside", "notificationType": "INFO"}
    answer = await send(feed, EVENT | {"type": "notification.create", "data": data})
    assert answer.status == 202
    async with asyncio.timeout(PATIENCE):
        while not (found := (await ann.get("/api/notifications")).body["items"]):
            await asyncio.sleep(0.05)
    assert [(item["title"], item["message"]) for item in found] == [("Hello", "from outside")]


async def test_attributes_are_optional_and_null_is_none(feed: Client, stored: Stored) -> None:
    bare = {name: EVENT[name] for name in ("specversion", "id", "source", "type", "data")}
    assert (await send(feed, bare | {"subject": None, "time": None, "dataschema": None, "myext": None})).status == 202
    [envelope] = await stored.envelopes()
    assert (envelope.subject, envelope.causation_id, envelope.priority) == (None, None, 5)
    assert "myext" not in envelope.metadata
    assert envelope.correlation_id is not None


async def test_header_values_are_decoded(feed: Client, stored: Stored) -> None:
    answer = await binary(feed, EVENT | {"subject": "caf%C3%A9%20%E2%82%AC", "id": '"a \\"b\\""', "priority": 2})
    assert answer.status == 202, answer
    [envelope] = await stored.envelopes(lane=":p2")
    assert (envelope.subject, envelope.metadata["cloudEventId"]) == ("café €", 'a "b"')


async def test_the_request_lends_what_the_event_lacks(feed: Client, stored: Stored) -> None:
    await send(feed, EVENT, X_Correlation_Id="request-1", traceparent=TRACEPARENT)
    odd = EVENT | {"id": "A-2", "traceparent": "odd", "causationid": "01a20176-0000-7000-8000-000000000001"}
    await send(feed, odd, X_Correlation_Id="request-2")
    first, second = await stored.envelopes()
    assert (first.correlation_id, first.traceparent) == ("request-1", TRACEPARENT)
    assert (second.traceparent, second.causation_id) == (None, "01a20176-0000-7000-8000-000000000001")


async def test_a_batch_is_stored_in_order_and_may_be_empty(feed: Client, stored: Stored) -> None:
    answer = await send(feed, [EVENT | {"id": f"A-{number}"} for number in range(50)], BATCH)
    envelopes = await stored.envelopes()
    assert [told["eventId"] for told in answer.body] == [envelope.id for envelope in envelopes]
    assert [envelope.metadata["cloudEventId"] for envelope in envelopes] == [f"A-{number}" for number in range(50)]
    empty = await send(feed, [], BATCH)
    assert (empty.status, empty.body) == (202, [])


# The same event again -------------------------------------------------------------------------------------------------


async def test_the_same_event_is_stored_once_and_named(feed: Client, stored: Stored) -> None:
    first = await send(feed, EVENT)
    again = await binary(feed, EVENT)
    batch = await send(feed, [EVENT, EVENT | {"id": "A-2"}, EVENT | {"id": "A-2"}], BATCH)
    assert (again.status, again.body) == (202, {"eventId": first.body["eventId"], "status": "duplicate"})
    assert [told["status"] for told in batch.body] == ["duplicate", "stored", "duplicate"]
    assert batch.body[0]["eventId"] == first.body["eventId"]
    assert batch.body[1]["eventId"] == batch.body[2]["eventId"]
    assert len(await stored.envelopes()) == 2


async def test_an_id_is_its_sources_types_and_organizations(feed: Client, gateway: Gateway, stored: Stored) -> None:
    other = gateway.caller("importer", "umbrella", "system")
    answers = [
        await send(feed, EVENT),
        await send(feed, EVENT | {"source": "/another"}),
        await send(feed, EVENT | {"type": "lead.calculate_score"}),
        await send(other, EVENT),
        await send(feed, EVENT | {"source": EVENT["source"] + "A", "id": "-1"}),
    ]
    assert {answer.body["status"] for answer in answers} == {"stored"}
    assert len(await stored.envelopes()) == 5


async def test_an_id_of_ours_is_not_taken_over(feed: Client, gateway: Gateway, stored: Stored) -> None:
    """Inboxes are keyed by event id alone: whoever could choose one could have another's event passed over."""
    theirs = (await send(gateway.caller("root", "umbrella", "admin"), EVENT)).body["eventId"]
    answer = await send(feed, EVENT | {"id": theirs})
    assert answer.body["status"] == "stored"
    assert answer.body["eventId"] != theirs


async def test_sent_many_times_at_once_it_is_stored_once(feed: Client, stored: Stored) -> None:
    answers = await asyncio.gather(*(send(feed, EVENT) for _ in range(20)))
    assert sorted(answer.body["status"] for answer in answers) == ["duplicate"] * 19 + ["stored"]
    assert len({answer.body["eventId"] for answer in answers}) == 1
    assert len(await stored.envelopes()) == 1


async def test_an_idempotency_key_answers_what_the_first_did(feed: Client, stored: Stored) -> None:
    first = await send(feed, EVENT, Idempotency_Key="key-1")
    again = await send(feed, dict(reversed(EVENT.items())), Idempotency_Key="key-1")
    assert (again.status, again.body) == (202, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert locations(await send(feed, EVENT | {"id": "A-2"}, Idempotency_Key="key-1")) == [
        ["header", "Idempotency-Key"]
    ]
    assert len(await stored.envelopes()) == 1


async def test_attributes_in_headers_belong_to_the_body_of_a_key(feed: Client, stored: Stored) -> None:
    assert (await binary(feed, EVENT, Idempotency_Key="key-1")).status == 202
    assert (await binary(feed, EVENT | {"id": "A-2"}, Idempotency_Key="key-1")).status == 422
    assert len(await stored.envelopes()) == 1


async def test_a_key_that_did_not_commit_stores_nothing_twice(
    feed: Client, stored: Stored, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr("gateway.endpoints.idempotency._store", fail)
        assert_problem(await send(feed, EVENT, Idempotency_Key="key-1"), 503, "/api/events")
    again = await send(feed, EVENT, Idempotency_Key="key-1")
    [envelope] = await stored.envelopes()
    assert again.body == {"eventId": envelope.id, "status": "duplicate"}


# Whose event it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "status"), [("user", 403), ("admin", 202), ("system", 202)])
async def test_admins_and_systems_publish(role: str, status: int, gateway: Gateway, stored: Stored) -> None:
    answer = await send(gateway.caller("ann", "acme", role), EVENT)
    assert answer.status == status
    assert len(await stored.envelopes()) == (status == 202)


async def test_nobody_publishes_nothing(gateway: Gateway, stored: Stored) -> None:
    assert_problem(await send(gateway.bearer(""), EVENT), 401, "/api/events")
    assert await stored.keys() == []


NAMED = [
    ({"organizationid": "umbrella"}, [["body", "organizationid"]]),
    ({"data": DATA | {"organizationId": "umbrella"}}, [["body", "data", "organizationId"]]),
    ({"organizationid": "acme", "data": DATA | {"organizationId": "umbrella"}}, [["body", "data", "organizationId"]]),
]


@pytest.mark.parametrize(("change", "faults"), NAMED)
async def test_an_admin_names_no_other_organization(
    change: dict[str, Any], faults: list[Any], admin: Client, stored: Stored, tables: Tables
) -> None:
    assert locations(await send(admin, EVENT | change)) == faults
    assert await nothing(stored, tables)
    own = await send(admin, EVENT | {"organizationid": "acme", "data": DATA | {"organizationId": "acme"}})
    assert own.status == 202


@pytest.mark.parametrize("change", [change for change, _ in NAMED[:2]])
async def test_a_system_names_one(change: dict[str, Any], feed: Client, stored: Stored) -> None:
    assert (await send(feed, EVENT | change)).status == 202
    [envelope] = await stored.envelopes()
    assert (envelope.organization, json.loads(envelope.data)["organizationId"]) == ("umbrella", "umbrella")


async def test_a_type_without_a_place_for_it_has_an_organization_too(feed: Client, stored: Stored) -> None:
    mail = EVENT | {"type": "email.send_submission_confirmation", "data": {"to": "lea@example.com", "data": {}}}
    assert (await send(feed, mail)).status == 202
    [envelope] = await stored.envelopes("email")
    assert envelope.organization == "acme"
    assert "organizationId" not in json.loads(envelope.data)


@pytest.mark.parametrize(
    "change",
    [
        {"organizationid": "umbrella", "data": DATA | {"organizationId": "acme"}},
        {"data": DATA | {"organizationId": 5}},
        {"data": DATA | {"organizationId": ""}},
        {"data": DATA | {"organizationId": "x" * 129}},
    ],
)
async def test_what_a_system_names_must_be_one(
    change: dict[str, Any], feed: Client, stored: Stored, tables: Tables
) -> None:
    assert locations(await send(feed, EVENT | change)) == [["body", "data", "organizationId"]]
    assert await nothing(stored, tables)


# Refused --------------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "unknown type": ({"type": "lead.enriched"}, ["type"]),
    "no dotted type": ({"type": "x"}, ["type"]),
    "type is a number": ({"type": 5}, ["type"]),
    "empty id": ({"id": ""}, ["id"]),
    "id is a number": ({"id": 7}, ["id"]),
    "id is null": ({"id": None}, ["id"]),
    "control character in the id": ({"id": "a\nb"}, ["id"]),
    "too long an id": ({"id": "x" * 1025}, ["id"]),
    "no uri": ({"source": "not a uri"}, ["source"]),
    "specversion 0.3": ({"specversion": "0.3"}, ["specversion"]),
    "specversion is a number": ({"specversion": 1.0}, ["specversion"]),
    "empty subject": ({"subject": ""}, ["subject"]),
    "no time": ({"time": "yesterday"}, ["time"]),
    "time without a zone": ({"time": "2026-01-31T12:00:00"}, ["time"]),
    "no such day": ({"time": "2026-02-31T12:00:00Z"}, ["time"]),
    "time is a number": ({"time": 1769860800}, ["time"]),
    "xml": ({"datacontenttype": "application/xml"}, ["datacontenttype"]),
    "odd correlation id": ({"correlationid": "a b"}, ["correlationid"]),
    "odd causation id": ({"causationid": "A-1"}, ["causationid"]),
    "priority 0": ({"priority": 0}, ["priority"]),
    "camel case attribute": ({"organizationId": "acme"}, []),
    "base64": ({"data_base64": "e30="}, []),
    "too many attributes": ({f"x{number}": 1 for number in range(33)}, []),
    "no data": ({"data": None}, ["data", "leadId"]),
    "data is a list": ({"data": [1]}, ["data"]),
    "data is text": ({"data": "{}"}, ["data"]),
    "a field lacks": ({"data": {"fields": []}}, ["data", "leadId"]),
    "a field too much": ({"data": DATA | {"leedId": "x"}}, ["data", "leedId"]),
    "a name in Python": ({"data": {"lead_id": "lead-1"}}, ["data", "leadId"]),
    "nothing is coerced": ({"data": {"leadId": 5}}, ["data", "leadId"]),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_said_and_changes_nothing(
    name: str, feed: Client, stored: Stored, tables: Tables
) -> None:
    change, location = WRONG[name]
    single = await send(feed, EVENT | change, Idempotency_Key="key-1")
    batch = await send(feed, [EVENT, EVENT | change, EVENT | {"id": "A-3"}], BATCH)
    assert ["body", *location] in [found[: len(location) + 1] for found in locations(single)]
    assert ["body", 1, *location] in [found[: len(location) + 2] for found in locations(batch)]
    assert {found[1] for found in locations(batch)} == {1}
    assert await nothing(stored, tables)


async def test_every_bad_element_of_a_batch_is_named(feed: Client, stored: Stored, tables: Tables) -> None:
    bad = [EVENT, EVENT | {"type": "lead.nope"}, EVENT | {"data": {}}]
    assert locations(await send(feed, bad, BATCH)) == [["body", 1, "type"], ["body", 2, "data", "leadId"]]
    assert await nothing(stored, tables)


async def test_a_type_that_is_nearly_one_is_suggested(feed: Client) -> None:
    answer = await send(feed, EVENT | {"type": "lead.enriched"})
    assert "did you mean lead.enrich?" in answer.body["errors"][0]["msg"]


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
async def test_what_an_event_must_have_in_its_headers(name: str, feed: Client, stored: Stored, tables: Tables) -> None:
    headers = in_headers(EVENT)
    del headers[f"ce_{name}"]
    assert locations(await send(feed, DATA, JSON, **headers)) == [["header", f"ce-{name}"]]
    assert await nothing(stored, tables)


async def test_plain_json_is_no_cloudevent(feed: Client, stored: Stored, tables: Tables) -> None:
    found = locations(await send(feed, DATA, JSON))
    assert found == [["header", f"ce-{name}"] for name in ("specversion", "id", "source", "type")]
    assert await nothing(stored, tables)


@pytest.mark.parametrize(
    ("headers", "location"),
    [
        ({"ce_datacontenttype": "application/json"}, ["header", "ce-datacontenttype"]),
        ({"ce_data": "{}"}, ["header", "ce-data"]),
        ({"ce_subject": "%ff"}, ["header", "ce-subject"]),
        ({"ce_time": "now"}, ["header", "ce-time"]),
        ({"ce_priority": "eleven"}, ["header", "ce-priority"]),
    ],
)
async def test_odd_headers(
    headers: dict[str, str], location: list[str], feed: Client, stored: Stored, tables: Tables
) -> None:
    assert locations(await send(feed, DATA, JSON, **in_headers(EVENT) | headers)) == [location]
    assert await nothing(stored, tables)


async def test_a_header_that_is_there_twice(feed: Client, gateway: Gateway, stored: Stored) -> None:
    headers = [(name.replace("_", "-"), value) for name, value in in_headers(EVENT).items()]
    headers += [("ce-id", "A-2"), ("Authorization", f"Bearer {feed.token}"), ("Content-Type", JSON)]
    async with gateway.session.post(f"{gateway.url}/api/events", json=DATA, headers=headers) as response:
        assert response.status == 422
        assert (await response.json())["errors"] == [{"loc": ["header", "ce-id"], "msg": "is there twice"}]
    assert await stored.keys() == []


class Counted(Event, type="gateway_test.counted"):
    count: int
    owner: UUID | None = None


@pytest.mark.parametrize(("count", "status"), [(5, 202), ("5", 422), (5.0, 422), (True, 422)])
async def test_numbers_are_numbers_and_ids_are_text(count: object, status: int, feed: Client, stored: Stored) -> None:
    data = {"count": count, "owner": "01a20176-0000-7000-8000-000000000001"}
    answer = await send(feed, EVENT | {"type": "gateway_test.counted", "data": data})
    assert answer.status == status
    if status == 422:
        assert locations(answer) == [["body", "data", "count"]]
    assert len(await stored.envelopes("gateway_test")) == (status == 202)


async def test_data_of_the_binary_mode_is_found_in_the_body(feed: Client) -> None:
    assert locations(await binary(feed, EVENT | {"data": {"leadId": 5}})) == [["body", "leadId"]]


@pytest.mark.parametrize("content_type", [STRUCTURED, BATCH, JSON])
@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff"])
async def test_what_is_no_json_is_400(
    content_type: str, body: bytes, feed: Client, stored: Stored, tables: Tables
) -> None:
    assert_problem(await send(feed, body, content_type, **in_headers(EVENT)), 400, "/api/events")
    assert await nothing(stored, tables)


@pytest.mark.parametrize("content_type", ["text/plain", "application/cloudevents+avro", "application/xml", None])
async def test_another_content_type_is_415(
    content_type: str | None, feed: Client, stored: Stored, tables: Tables
) -> None:
    answer = await feed.send("POST", "/api/events", orjson.dumps(EVENT), content_type=content_type)
    assert_problem(answer, 415, "/api/events")
    assert await nothing(stored, tables)


async def test_too_large(feed: Client, stored: Stored, tables: Tables) -> None:
    large = EVENT | {"data": DATA | {"fields": ["x" * MAX_BODY]}}
    assert_problem(await send(feed, large), 413, "/api/events")
    many = [EVENT | {"id": str(number)} for number in range(MAX_BATCH + 1)]
    assert locations(await send(feed, many, BATCH)) == [["body"]]
    assert locations(await send(feed, EVENT, BATCH)) == [["body"]]
    assert await nothing(stored, tables)


@pytest.mark.parametrize("depth", [100, *range(185, 205), 300, 1_000, 100_000])
async def test_too_deep_is_refused_and_less_can_be_read_again(depth: int, feed: Client, stored: Stored) -> None:
    changes = b'{"new": ' * depth + b"1" + b"}" * depth
    data = b'{"leadId": "lead-1", "changes": {"name": ' + changes + b"}}"
    event = orjson.dumps({name: value for name, value in EVENT.items() if name != "data"} | {"type": "lead.updated"})
    answer = await send(feed, event[:-1] + b', "data": ' + data + b"}")
    assert answer.status == (202 if depth < 190 else answer.status)
    for envelope in await stored.envelopes():
        open_event(envelope)
        return
    assert answer.status in {400, 422}
    assert depth > 190
