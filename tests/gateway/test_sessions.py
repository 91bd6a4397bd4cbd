"""/api/sessions, row by row: what it answers, what it refuses, and what is in Redis behind it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from eventbus import EventBus
from eventbus.contract.codec import decode, open_event
from eventbus.contract.session_store import MAX_BYTES, MAX_EVENTS, SessionId
from eventbus.embedded import EmbeddedRedis
from eventbus.event import Envelope, uuid7
from gateway.events.cloudevents import STRUCTURED
from handlers.lead.events import CalculateScore
from tests.gateway.client import Client, Gateway, running
from tests.gateway.test_problems import assert_problem
from tests.samples import consumer
from tests.servers import OwnRedis
from tests.waiting import eventually

PATH = "/api/sessions"
STEPS = ["", "/events", "/commit", "/rollback"]
ENRICH = {"type": "lead.enrich", "data": {"leadId": "lead-1"}, "key": "lead-1"}
SCORE = {"type": "lead.calculate_score", "data": {"leadId": "lead-1"}}
MAIL = {"type": "email.send_submission_confirmation", "data": {"to": "lea@example.com", "data": {}}}


@pytest.fixture
def feed(gateway: Gateway) -> Client:
    """A system of acme."""
    return gateway.caller("importer", "acme", "system")


async def start(client: Client, **body: Any) -> str:
    answer = await client.post(PATH, body)
    assert answer.status == 201, answer
    return f"{PATH}/{answer.body['sessionId']}"


async def stored(bus: EventBus, *streams: str) -> list[Envelope]:
    found = []
    for stream in streams or ("lead", "email"):
        reader = consumer(stream=stream, group="look")
        for _ in range(3):
            found += [decode(each.fields) for each in await bus.transport.read(reader, 20_000, 0.02)]
    return found


def locations(answer: Any) -> list[Any]:
    assert answer.status == 422, answer
    return [error["loc"] for error in answer.body["errors"]]


# Starting -------------------------------------------------------------------------------------------------------------


async def test_a_session_is_started(feed: Client) -> None:
    answer = await feed.post(PATH, {"metadata": {"import": 7, "of": ["a", None]}})
    assert answer.status == 201
    body = answer.body
    assert answer.headers["Location"] == f"{PATH}/{body['sessionId']}"
    assert (body["status"], body["eventCount"], body["contingency"]) == ("ACTIVE", 0, False)
    times = [datetime.fromisoformat(body[name]) for name in ("createdAt", "expiresAt")]
    assert (times[1] - times[0]).total_seconds() == 86_400
    assert UUID(body["sessionId"]).version == 7
    shown = (await feed.get(answer.headers["Location"])).body
    assert shown["metadata"] == {"import": 7, "of": ["a", None]}
    assert {name: shown[name] for name in body if name != "contingency"} == {
        name: body[name] for name in body if name != "contingency"
    }


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"metadata": []}, ["body", "metadata"]),
        ({"metadata": {"a": "x" * 16_384}}, ["body", "metadata"]),
        ({"organizationId": "umbrella"}, ["body", "organizationId"]),
    ],
)
async def test_what_no_session_is_started_with(body: Any, where: list[str], feed: Client, bus: EventBus) -> None:
    assert locations(await feed.post(PATH, body)) == [where]
    assert await bus.sessions.ledger.active("acme") == 0


async def test_a_key_starts_one_session(feed: Client, bus: EventBus) -> None:
    answers = [await feed.post(PATH, {}, Idempotency_Key="k-1") for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert await bus.sessions.ledger.active("acme") == 1


# Adding ---------------------------------------------------------------------------------------------------------------


async def test_events_are_added_one_by_one_and_in_lists(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    answers = [await feed.post(f"{session}/events", body) for body in (ENRICH, [SCORE, MAIL], [])]
    assert [answer.status for answer in answers] == [202] * 3
    assert {answer.headers["Location"] for answer in answers} == {session}
    told = {"sessionId": session.rpartition("/")[2], "contingency": False}
    assert [answer.body for answer in answers] == [{**told, "eventCount": count} for count in (1, 3, 3)]
    shown = await feed.get(f"{session}/events")
    assert shown.status == 200
    assert [(event["type"], event["key"]) for event in shown.body["items"]] == [
        ("lead.enrich", "lead-1"),
        ("lead.calculate_score", None),
        ("email.send_submission_confirmation", None),
    ]
    assert shown.body["items"][0]["data"] == {"leadId": "lead-1", "organizationId": "acme", "fields": None}
    assert await stored(bus) == []


async def test_events_of_a_session_are_paged(feed: Client) -> None:
    session = await start(feed)
    sent = [{**SCORE, "key": str(number)} for number in range(7)]
    await feed.post(f"{session}/events", sent)
    items = await feed.all_of(f"{session}/events?limit=3")
    assert [event["key"] for event in items] == [str(number) for number in range(7)]
    assert locations(await feed.get(f"{session}/events?limit=201")) == [["query", "limit"]]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "lead.enriched"}, ["type"]),
        ({"type": 5}, ["type"]),
        ({"type": "x\ny"}, ["type"]),
        ({"data": None}, ["data"]),
        ({"data": []}, ["data"]),
        ({"data": {}}, ["data", "leadId"]),
        ({"data": {"leadId": 5}}, ["data", "leadId"]),
        ({"data": {"leadId": "lead-1", "leedId": "x"}}, ["data", "leedId"]),
        ({"data": {"leadId": "lead-1", "organizationId": "umbrella"}}, ["data", "organizationId"]),
        ({"key": 5}, ["key"]),
        ({"key": "a\nb"}, ["key"]),
        ({"priority": 1}, ["priority"]),
    ],
)
async def test_what_is_wrong_is_said_where_it_is_added_and_nothing_is(
    change: Any, where: list[str], feed: Client
) -> None:
    session = await start(feed)
    single = await feed.post(f"{session}/events", ENRICH | change)
    batch = await feed.post(f"{session}/events", [ENRICH, ENRICH | change, SCORE])
    assert locations(single) == [["body", *where]]
    assert locations(batch) == [["body", 1, *where]]
    assert (await feed.get(session)).body["eventCount"] == 0


@pytest.mark.parametrize("body", [None, 5, "lead.enrich", [[]], [None]])
async def test_what_is_no_event(body: Any, feed: Client) -> None:
    session = await start(feed)
    assert (await feed.send("POST", f"{session}/events", orjson.dumps(body))).status == 422
    assert (await feed.get(session)).body["eventCount"] == 0


async def test_an_event_is_the_tokens_organizations_whatever_the_role(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    own = {**ENRICH, "data": {"leadId": "lead-1", "organizationId": "acme"}}
    assert (await feed.post(f"{session}/events", [own, MAIL])).status == 202
    assert (await feed.post(f"{session}/commit")).status == 200
    assert [event.organization for event in await stored(bus)] == ["acme", "acme"]


async def test_too_many_and_too_much_is_413(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    place = SessionId("acme", session.rpartition("/")[2])
    many = [Envelope(uuid7(), "lead.enrich", b"{}") for _ in range(MAX_EVENTS - 1)]
    await bus.sessions.ledger.add(place, "many", many)
    assert_problem(await feed.post(f"{session}/events", [ENRICH, ENRICH]), 413, f"{session}/events")
    assert (await feed.post(f"{session}/events", ENRICH)).body["eventCount"] == MAX_EVENTS
    assert_problem(await feed.post(f"{session}/events", ENRICH), 413, f"{session}/events")

    other = await start(feed)
    place = SessionId("acme", other.rpartition("/")[2])
    await bus.sessions.ledger.add(place, "much", [Envelope(uuid7(), "lead.enrich", b"x" * (MAX_BYTES - 100))])
    large = {**ENRICH, "data": {"leadId": "x" * 100}}
    assert_problem(await feed.post(f"{other}/events", large), 413, f"{other}/events")
    assert (await feed.post(f"{other}/events", {**SCORE, "data": {"leadId": "x"}})).status == 202


async def test_a_key_adds_once_also_if_its_answer_was_never_stored(
    feed: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await start(feed)

    async def fail(*_arguments: object) -> None:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr("gateway.endpoints.idempotency._store", fail)
        assert (await feed.post(f"{session}/events", ENRICH, Idempotency_Key="k-1")).status == 503
    assert (await feed.get(session)).body["eventCount"] == 1
    again = await feed.post(f"{session}/events", ENRICH, Idempotency_Key="k-1")
    assert (again.status, again.body["eventCount"]) == (202, 1)
    assert (await feed.post(f"{session}/events", ENRICH, Idempotency_Key="k-2")).body["eventCount"] == 2


# Ending ---------------------------------------------------------------------------------------------------------------


async def test_a_commit_publishes_all_and_again_nothing(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    sent = [{**SCORE, "key": str(number)} for number in range(600)]
    await feed.post(f"{session}/events", [*sent, MAIL], X_Correlation_Id="c-1", traceparent=TRACE)
    answers = [await feed.post(f"{session}/commit") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    assert answers[0].body == {
        "sessionId": session.rpartition("/")[2],
        "status": "COMMITTED",
        "published": 601,
        "batches": 4,
        "contingency": False,
    }
    found = await stored(bus)
    assert [event.subject for event in found] == [*(str(number) for number in range(600)), None]
    assert {(event.correlation_id, event.organization, event.traceparent) for event in found} == {
        ("c-1", "acme", TRACE)
    }
    assert found[0].metadata["userId"] == "importer"
    assert isinstance(open_event(found[0]), CalculateScore)
    shown = (await feed.get(session)).body
    assert (shown["status"], shown["published"], shown["batches"]) == ("COMMITTED", 601, 4)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_commits_at_once_publish_once(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    await feed.post(f"{session}/events", [SCORE] * 300)
    answers = await asyncio.gather(*(feed.post(f"{session}/commit") for _ in range(5)))
    assert {(answer.status, answer.body["published"], answer.body["batches"]) for answer in answers} == {(200, 300, 2)}
    assert len(await stored(bus)) == 300


async def test_a_rollback_publishes_nothing(feed: Client, bus: EventBus) -> None:
    session = await start(feed)
    await feed.post(f"{session}/events", ENRICH)
    answers = [await feed.post(f"{session}/rollback") for _ in range(2)]
    told = {"sessionId": session.rpartition("/")[2], "status": "ROLLED_BACK", "contingency": False}
    assert [(answer.status, answer.body) for answer in answers] == [(200, told)] * 2
    assert (await feed.get(f"{session}/events")).body["items"] == []
    assert (await feed.get(session)).body["status"] == "ROLLED_BACK"
    assert await stored(bus) == []


async def test_wrong_transitions_are_409(feed: Client, bus: EventBus) -> None:
    committed, given_up = await start(feed), await start(feed)
    await feed.post(f"{committed}/commit")
    await feed.post(f"{given_up}/rollback")
    for path, body in (
        (f"{committed}/events", ENRICH),
        (f"{committed}/rollback", None),
        (f"{given_up}/events", ENRICH),
        (f"{given_up}/commit", None),
    ):
        assert_problem(await feed.post(path, body), 409, path)
    assert await stored(bus) == []


async def test_what_has_expired_is_seen_and_takes_nothing(feed: Client, bus: EventBus) -> None:
    over = SessionId("acme", uuid7())
    await bus.sessions.ledger.start(over, {}, 2.0)
    path = f"{PATH}/{over.id}"

    async def expired() -> bool:
        return bool((await feed.get(path)).body["status"] == "EXPIRED")

    await eventually(expired)
    for step, body in (("events", ENRICH), ("commit", None), ("rollback", None)):
        assert_problem(await feed.post(f"{path}/{step}", body), 409, f"{path}/{step}")


# Whose it is ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
async def test_nobodys_and_another_organizations_session_is_404(
    step: str, feed: Client, stranger: Client, bus: EventBus
) -> None:
    session = await start(feed)
    await feed.post(f"{session}/events", ENRICH)
    for client, path in ((stranger, session), (feed, f"{PATH}/{uuid7()}"), (feed, f"{PATH}/nope")):
        url = path + step
        if step in {"", "/events"}:
            assert_problem(await client.get(url), 404, url)
        if step:
            assert_problem(await client.post(url, ENRICH if step == "/events" else None), 404, url)
    shown = (await feed.get(session)).body
    assert (shown["status"], shown["eventCount"]) == ("ACTIVE", 1)
    assert await stored(bus) == []


@pytest.mark.parametrize("step", STEPS)
async def test_a_session_is_its_users_own(step: str, gateway: Gateway, feed: Client) -> None:
    ann, bob = gateway.caller("ann"), gateway.caller("bob")
    session = await start(ann, metadata={"batch": 7})
    body = ENRICH if step == "/events" else None
    assert_problem(await (bob.post(session + step, body) if step else bob.get(session)), 404, session + step)
    assert (await feed.get(session)).body["metadata"] == {"batch": 7}
    answer = await (ann.post(session + step, body) if step else ann.get(session))
    assert answer.status == (202 if step == "/events" else 200)


async def test_who_does_not_run_the_house_speaks_for_himself(gateway: Gateway, feed: Client) -> None:
    notice = {"organizationId": "acme", "title": "Hi", "message": "there", "notificationType": "INFO"}
    ann = gateway.caller("ann")
    for user, client, status in (("bob", ann, 422), ("ann", ann, 202), ("bob", feed, 202)):
        event = {"type": "notification.create", "data": {"userId": user, **notice}}
        answer = await client.post(f"{await start(client)}/events", event)
        assert answer.status == status, answer
        if status == 422:
            assert locations(answer) == [["body", "data", "userId"]]


async def test_it_may_be_started_without_a_body(gateway: Gateway) -> None:
    assert (await gateway.caller("ann").post(PATH)).status == 201
    refused = await gateway.caller("ann").send("POST", PATH, b"x=1", content_type="text/plain")
    assert_problem(refused, 415, PATH)


async def test_no_client_says_whose_it_is(gateway: Gateway) -> None:
    answer = await gateway.caller("ann").post(PATH, {"metadata": {"\0userId": "bob"}})
    assert locations(answer) == [["body", "metadata"]]


async def test_the_active_ones_are_counted(feed: Client, stranger: Client) -> None:
    sessions = [await start(feed) for _ in range(3)]
    await feed.post(f"{sessions[0]}/commit")
    counts = [(await client.get("/api/metrics")).body["activeSessions"] for client in (feed, stranger)]
    assert counts == [2, 0]


# With Redis away ------------------------------------------------------------------------------------------------------


Outage = tuple[EmbeddedRedis, EventBus, Gateway]


@pytest.fixture
async def outage(own_redis: OwnRedis, database_url: str, tmp_path: Path) -> AsyncIterator[Outage]:
    # A killed server may lose what it has not written while its disk is busy: that is its setting's promise, not ours.
    redis = await asyncio.to_thread(lambda: own_redis(options={"appendfsync": "always"}))
    async with (
        EventBus(redis.url, database=database_url, spool=tmp_path / "spool.jsonl") as bus,
        running(bus) as gateway,
    ):
        yield redis, bus, gateway


async def emptied(bus: EventBus) -> bool:
    assert bus.spool is not None
    return not bus.spool.waits


async def test_with_redis_away_nothing_is_aborted(outage: Outage) -> None:
    redis, bus, gateway = outage
    feed = gateway.caller("importer", "acme", "system")
    before = await start(feed)
    assert (await feed.post(f"{before}/events", ENRICH)).body["contingency"] is False
    await asyncio.to_thread(redis.kill)
    answers = [
        await feed.post(f"{before}/events", SCORE),
        await feed.post(f"{before}/commit"),
        await feed.post(PATH, {"metadata": {"made": "in the dark"}}),
    ]
    assert [answer.status for answer in answers] == [202, 200, 201]
    assert all(answer.body["contingency"] is True for answer in answers)
    assert answers[0].body["eventCount"] == 2
    assert (answers[1].body["status"], answers[1].body["published"]) == ("COMMITTING", 0)
    assert_problem(await feed.post(f"{before}/events", SCORE), 409, f"{before}/events")
    during = answers[2].headers["Location"]
    added = await feed.post(f"{during}/events", [SCORE, MAIL])
    assert (added.status, added.body["eventCount"], added.body["contingency"]) == (202, 2, True)
    given_up = await start(feed)
    back = await feed.post(f"{given_up}/rollback")
    assert (back.status, back.body["status"], back.body["contingency"]) == (200, "ROLLED_BACK", True)
    bad = await feed.post(f"{during}/events", {**ENRICH, "type": "lead.enriched"})
    assert locations(bad) == [["body", "type"]]
    assert (await feed.get(during)).status == 503

    event = {"specversion": "1.0", "id": "A-1", "source": "/tests", **SCORE}
    cloud = await feed.send("POST", "/api/events", orjson.dumps(event), content_type=STRUCTURED)
    assert (cloud.status, cloud.body["status"], cloud.body["contingency"]) == (202, "spooled", True)

    ready = (await feed.get("/readyz?verbose")).body
    assert (ready["details"]["spool"]["records"], ready["details"]["spool"]["rejected"]) == (7, 0)
    async with gateway.session.get(f"{gateway.url}/metrics") as scrape:
        assert "eventbus_spool_records 7.0" in await scrape.text()

    await asyncio.to_thread(redis.start)
    await eventually(lambda: emptied(bus))
    shown = (await feed.get(before)).body
    assert (shown["status"], shown["published"]) == ("COMMITTED", 2), shown
    shown = (await feed.get(during)).body
    assert (shown["status"], shown["eventCount"], shown["metadata"]) == ("ACTIVE", 2, {"made": "in the dark"})
    assert (await feed.get(given_up)).body["status"] == "ROLLED_BACK"
    done = await feed.post(f"{during}/commit")
    assert (done.body["status"], done.body["published"], done.body["contingency"]) == ("COMMITTED", 2, False)
    assert sorted(event.type for event in await stored(bus)) == [
        "email.send_submission_confirmation",
        "lead.calculate_score",
        "lead.calculate_score",
        "lead.calculate_score",
        "lead.enrich",
    ]
