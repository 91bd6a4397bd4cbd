"""What one request may cost all others: no more than a tenth of a second, whatever is in it."""

import gzip
from typing import Any

import orjson
import pytest

from gateway.endpoints.dispatch import MAX_BODY
from tests.gateway.client import Answer, Client
from tests.gateway.test_problems import assert_problem
from tests.gateway.watchdog import check_brief, worked

FIELDS = 90_000


def _list_of(item: bytes, most: int = MAX_BODY) -> bytes:
    """As many as go into a body, and no more than `most`."""
    return b"[" + b",".join([item] * min(most, (MAX_BODY - 2) // (len(item) + 1))) + b"]"


def _object_of(fields: int) -> bytes:
    return orjson.dumps({f"f{number}": 1 for number in range(fields)})


UNKNOWN = b'{"type":"no.such.type","data":{}}'
UNFIT = b'{"type":"lead.enrich","data":{}}'
FIT = b'{"type":"lead.enrich","data":{"leadId":"lead-1"}}'


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (_list_of(UNKNOWN), 413),
        (_list_of(UNKNOWN, 10_000), 422),
        (_list_of(UNFIT, 10_000), 422),
        (_list_of(FIT), 413),
        (_list_of(FIT, 10_000), 202),
        (_list_of(b"1"), 422),
        (_list_of(b"1", 10_000), 422),
        (_list_of(b"[]", 10_000), 422),
        (b'{"type":"lead.enrich","data":' + _object_of(FIELDS) + b"}", 422),
        (b"[" + _object_of(FIELDS) + b"]", 422),
        (_object_of(FIELDS), 422),
    ],
    ids=[
        *("unknown", "unknown-10k", "unfit", "too-many", "fit", "numbers", "numbers-10k", "lists"),
        *("fields", "fields-of-one", "fields-of-none"),
    ],
)
async def test_events_of_a_session(ann: Client, events: bytes, status: int) -> None:

    async def add() -> Answer:
        started = await ann.post("/api/sessions")
        return await ann.send("POST", f"/api/sessions/{started.body['sessionId']}/events", events)

    answer = await check_brief(add)
    assert answer.status == status
    assert len(answer.body.get("errors", [])) <= 100


@pytest.mark.parametrize("path", ["/api/leads", "/api/messages", "/api/agents", "/api/sessions", "/api/ws-tickets"])
@pytest.mark.parametrize(
    "body", [_object_of(FIELDS), _object_of(40_000), _list_of(b"1"), b"[" * 500_000], ids=["90k", "40k", "list", "deep"]
)
async def test_bodies(ann: Client, path: str, body: bytes) -> None:
    answer = await check_brief(lambda: ann.send("POST", path, body))
    assert answer.status in ({400, 422} if path != "/api/ws-tickets" else {201})
    assert len(orjson.dumps(answer.body)) < 64 * 1024, "what is told is bounded, too"


async def test_what_is_left_out_of_the_errors_is_counted(ann: Client) -> None:
    answer = await ann.send("POST", "/api/leads", _object_of(150))
    assert_problem(answer, 422, "/api/leads")
    assert len(answer.body["errors"]) == 100
    assert answer.body["errorsOmitted"] == 50


async def test_a_name_that_is_not_known_is_told_in_short(ann: Client) -> None:
    answer = await ann.send("POST", "/api/leads", orjson.dumps({"name": "Ada", "x" * 500_000: 1}))
    assert [len(error["loc"][1]) for error in answer.body["errors"]] == [128]


async def test_text_may_have_as_many_commas_as_it_likes(ann: Client) -> None:
    """Parts are counted, and not what separates words."""
    started = await ann.post("/api/sessions")
    event = {"type": "lead.enrich", "data": {"leadId": '"\\' + "," * 500_000}}
    answer = await ann.post(f"/api/sessions/{started.body['sessionId']}/events", event)
    assert answer.status == 202


async def test_a_page_of_large_funnels(admin: Client, ann: Client) -> None:
    templates = [{"title": f"t{number}"} for number in range(100)]
    funnel = {"name": "Sales", "steps": [{"name": f"s{number}", "taskTemplates": templates} for number in range(50)]}
    for _ in range(4):
        assert (await admin.post("/api/funnels", funnel)).status == 201
    one = await _cost(ann, "/api/funnels?limit=1")
    four = await _cost(ann, "/api/funnels?limit=4")
    assert four < 8 * one, "four times as much, and not sixteen times"


async def _cost(caller: Client, path: str) -> float:
    tried = [await worked(lambda: caller.get(path)) for _ in range(3)]
    assert {answer.status for answer, _ in tried} == {200}
    return min(work for _, work in tried)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "foo", "gzip, identity"])
@pytest.mark.parametrize("path", ["/api/leads", "/api/ws-tickets", "/api/webhooks/telegram"])
async def test_a_body_that_is_compressed_is_refused_and_not_inflated(ann: Client, path: str, coding: str) -> None:
    bomb = gzip.compress(b"[" * 300 * MAX_BODY)
    assert len(bomb) < MAX_BODY
    answer = await check_brief(lambda: ann.send("POST", path, bomb, headers={"Content-Encoding": coding}))
    assert answer.status in {401, 404, 415}


async def test_a_body_as_it_is_may_say_so(ann: Client) -> None:
    answer = await ann.send("POST", "/api/leads", b'{"name":"Ada"}', headers={"Content-Encoding": "identity"})
    assert answer.status == 201


async def test_frames_of_a_socket(ann: Client) -> None:
    async with ann.socket() as socket:
        await socket.receive()
        frame = orjson.dumps({"type": "message", "data": {f"f{number}": 1 for number in range(5_000)}}).decode()

        async def say() -> Any:
            await socket.send_str(frame)
            return await socket.receive_json()

        said = await check_brief(say)
        assert said["data"]["code"] == "INVALID"
        assert len(said["data"]["message"]) < 2_048
        await socket.send_str("x" * (64 * 1024 + 1))
        assert (await socket.receive()).data == 1009


# What was answered with 500 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "status"), [({"a": 2**64}, 422), ({"a": -(2**63) - 1}, 422), ({"a": 10**30}, 422), ({"a": 2**63}, 201)]
)
async def test_numbers_that_cannot_be_kept_are_refused(ann: Client, metadata: dict[str, int], status: int) -> None:
    body = b'{"metadata":{"a":%d}}' % metadata["a"]
    assert (await ann.send("POST", "/api/sessions", body)).status == status


@pytest.mark.parametrize("status", [401])
@pytest.mark.parametrize("token", [b"\xff\xfe", b"\xc3\xa9", b"a.b.\xff"])
async def test_a_token_that_is_no_text_is_refused(ann: Client, token: bytes, status: int) -> None:
    answer = await ann.get("/api/leads", Authorization="Bearer " + token.decode(errors="surrogateescape"))
    assert_problem(answer, status, "/api/leads")


@pytest.mark.parametrize("name", ["a%00b", "idq%20x", "%ff", "a%0Ab", "a" * 200])
async def test_what_cannot_be_an_id_is_not_found(ann: Client, name: str) -> None:
    assert (await ann.get(f"/api/messages/{name}/status")).status == 404


async def test_any_body_is_taken_where_none_is_expected(ann: Client) -> None:
    body = b"[" * 300 + b"]" * 300
    answer = await ann.send("POST", "/api/ws-tickets", body, headers={"Idempotency-Key": "k"})
    assert answer.status == 201
    again = await ann.send("POST", "/api/ws-tickets", body, headers={"Idempotency-Key": "k"})
    assert (again.status, again.body) == (201, answer.body)
