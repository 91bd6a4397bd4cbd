"""/api/messages: what is taken, what is refused, once for an id, and what is told of it before anybody works on it."""

import asyncio
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from eventbus import EventBus
from gateway.callers.auth import make_token
from handlers.agent import known
from handlers.message import conversations
from handlers.message.handlers import message as group
from handlers.message.models import NewMessage
from handlers.message.service import accept
from handlers.partners.services import SERVICES, Services
from tests.gateway.client import SECRET, Answer, Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.test_leads import NOWHERE
from tests.waiting import PATIENCE, eventually
from tests.working import working

WEB = {"message": "What is the weather?", "channel": "web"}


@pytest.fixture
async def agent(ann: Client) -> str:
    answer = await ann.post("/api/agents", {"name": "Weather"})
    assert answer.status == 201, answer
    found: str = answer.body["id"]
    return found


async def stored(redis_url: str) -> list[dict[str, Any]]:
    """The data of all events in the stream of messages, most urgent first, with their priority."""
    found: list[dict[str, Any]] = []
    async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        for priority in range(1, 11):
            lane = "eb:{message}:stream" + ("" if priority == 5 else f":p{priority}")
            entries: Any = await client.xrange(lane)
            found += [{**orjson.loads(entry[b"data"]), "priority": priority} for _, entry in entries]
    return found


# Taken ----------------------------------------------------------------------------------------------------------------


async def test_a_message_is_accepted(ann: Client, agent: str, redis_url: str) -> None:
    answer = await ann.post("/api/messages", {"agentId": agent, **WEB})
    assert answer.status == 202, answer
    told = answer.body["data"]
    assert answer.body == {
        "success": True,
        "message": "The message is being processed",
        "data": {
            "messageId": told["messageId"],
            "conversationId": told["conversationId"],
            "jobId": told["messageId"],
            "status": "processing",
            "estimatedTime": 5,
        },
    }
    assert answer.headers["Location"] == f"/api/messages/{told['messageId']}/status"
    [event] = await stored(redis_url)
    assert event == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "agentId": agent,
        "userId": "ann",
        "channel": "web",
        "channelMetadata": {},
        "message": "What is the weather?",
        "metadata": None,
        "priority": 5,
    }
    status = await ann.get(answer.headers["Location"])
    assert (status.status, status.body) == (
        200,
        {
            "success": True,
            "data": {"messageId": told["messageId"], "state": "waiting", "progress": 0, "attempts": 0},
        },
    )


@pytest.mark.parametrize(
    "case",
    [
        ("web", None, {}),
        ("web", {}, {}),
        ("web", {"websocketId": "s1"}, {"websocketId": "s1"}),
        ("whatsapp", {"to": "+49 170 1234567"}, {"to": "+49 170 1234567"}),
        ("telegram", {"chatId": -1001234567890123}, {"chatId": -1001234567890123}),
        ("telegram", {"chatId": "@weather"}, {"chatId": "@weather"}),
        (
            "api",
            {"callbackUrl": "https://example.com:8443/hook?a=b"},
            {"callbackUrl": "https://example.com:8443/hook?a=b"},
        ),
    ],
)
async def test_each_channel_says_where_the_answer_goes(
    case: tuple[str, Any, Any], ann: Client, agent: str, redis_url: str
) -> None:
    channel, given, kept = case
    place = {} if given is None else {"channelMetadata": given}
    answer = await ann.post("/api/messages", {"agentId": agent, "message": "m", "channel": channel, **place})
    assert answer.status == 202, answer
    [event] = await stored(redis_url)
    assert (event["channel"], event["channelMetadata"]) == (channel, kept)


async def test_premium_users_are_ahead(ann: Client, agent: str, gateway: Gateway, redis_url: str) -> None:
    premium = gateway.bearer(make_token(SECRET, user="ann", organization="acme", tier="premium"))
    for client, priority in ((premium, 2), (premium, 9), (premium, None), (ann, 8), (ann, None)):
        more = {} if priority is None else {"priority": priority}
        assert (await client.post("/api/messages", {"agentId": agent, **WEB, **more})).status == 202
    assert [event["priority"] for event in await stored(redis_url)] == [1, 3, 5, 7, 8]


async def test_a_conversation_goes_on_before_anything_of_it_is_written_down(
    ann: Client, agent: str, redis_url: str
) -> None:
    first = (await ann.post("/api/messages", {"agentId": agent, **WEB})).body["data"]["conversationId"]
    second = await ann.post("/api/messages", {"agentId": agent, **WEB, "conversationId": first})
    assert (second.status, second.body["data"]["conversationId"]) == (202, first)
    assert {event["conversationId"] for event in await stored(redis_url)} == {first}
    assert (await ann.get(f"/api/conversations/{first}/messages")).body == {"items": [], "nextCursor": None}


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ({"agentId": None}, "agentId"),
        ({"agentId": "first"}, "agentId"),
        ({"agentId": NOWHERE}, "agentId"),
        ({"message": ""}, "message"),
        ({"message": " \n "}, "message"),
        ({"message": "a\u0000"}, "message"),
        ({"message": "x" * 32_001}, "message"),
        ({"message": ["a"]}, "message"),
        ({"channel": "fax"}, "channel"),
        ({"conversationId": "1"}, "conversationId"),
        ({"conversationId": NOWHERE}, "conversationId"),
        ({"priority": 0}, "priority"),
        ({"priority": 11}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"id": ""}, "id"),
        ({"id": "a b"}, "id"),
        ({"id": "-a"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": 5}, "id"),
        ({"userId": "eve"}, "userId"),
        ({"organizationId": "umbrella"}, "organizationId"),
        ({"channelMetadata": {"websocketId": 5}}, "channelMetadata"),
        ({"channelMetadata": {"to": "+49"}}, "channelMetadata"),
        ({"channelMetadata": None}, "channelMetadata"),
        ({"channelMetadata": []}, "channelMetadata"),
        ({"channel": "whatsapp", "channelMetadata": {}}, "channelMetadata"),
        ({"channel": "whatsapp", "channelMetadata": {"to": "Ann"}}, "channelMetadata"),
        ({"channel": "telegram", "channelMetadata": {"chatId": ""}}, "channelMetadata"),
        ({"channel": "telegram", "channelMetadata": {"chatId": 1.5}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "ftp://example.com"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "example.com/hook"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://u:p@example.com"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://example.com:99999"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://[::1"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://a b"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "http://127.0.0.1:8080/"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "http://2130706433/"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "http://[::ffff:10.0.0.1]/"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "http://169.254.169.254/latest"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "http://db.internal/"}}, "channelMetadata"),
        ({"channel": "api", "channelMetadata": {"callbackUrl": "https://example.com:25/"}}, "channelMetadata"),
    ],
)
async def test_what_is_no_message_is_refused_and_changes_nothing(
    wrong: tuple[dict[str, Any], str], ann: Client, agent: str, redis_url: str, tables: Tables
) -> None:
    changes, field = wrong
    before = await tables.everything()
    answer = await ann.post("/api/messages", {"agentId": agent, **WEB, **changes})
    assert answer.status == 422, answer
    assert answer.body["errors"][0]["loc"] == ["body", field], answer
    assert await stored(redis_url) == []
    assert await tables.everything() == before


async def test_an_address_inside_is_taken_where_the_house_allows_it(ann: Client, agent: str, bus: EventBus) -> None:
    bus.resources.provide(SERVICES, Services(callback_allow="127.0.0.1:8080"))

    async def post(port: int) -> Answer:
        place = {"channel": "api", "channelMetadata": {"callbackUrl": f"http://127.0.0.1:{port}/hook"}}
        return await ann.post("/api/messages", {"agentId": agent, "message": "m", **place})

    assert (await post(8080)).status == 202
    [error] = (await post(8081)).body["errors"]
    assert error["msg"] == "callbackUrl: 127.0.0.1 is no address of the public internet"


async def test_a_fault_of_the_channels_place_is_named(ann: Client, agent: str) -> None:
    body = {"agentId": agent, "message": "m", "channel": "whatsapp", "channelMetadata": {"chatId": 1}}
    [error] = (await ann.post("/api/messages", body)).body["errors"]
    assert error["msg"] == "to: Field required; chatId: Extra inputs are not permitted"
    del body["channelMetadata"]
    [error] = (await ann.post("/api/messages", body)).body["errors"]
    assert error == {"loc": ["body"], "msg": "channelMetadata is needed: to: Field required"}


async def test_an_agent_or_a_conversation_of_somebody_else_is_not_there(
    ann: Client, agent: str, gateway: Gateway, redis_url: str, bus: EventBus
) -> None:
    """Whether its rows are there or not, and however often it has been asked for."""
    begun = await ann.post("/api/messages", {"agentId": agent, **WEB})
    conversation = begun.body["data"]["conversationId"]
    for other in (gateway.caller("bob", "acme", "admin"), gateway.caller("ann", "umbrella", "admin")):
        answer = await other.post("/api/messages", {"agentId": agent, **WEB})
        assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", "agentId"])
        own = (await other.post("/api/agents", {"name": "Own"})).body["id"]
        answer = await other.post("/api/messages", {"agentId": own, **WEB, "conversationId": conversation})
        assert (answer.status, answer.body["errors"][0]["loc"]) == (422, ["body", "conversationId"])
        assert (await other.get(f"/api/conversations/{conversation}/messages")).status == 404
        assert (await other.get(begun.headers["Location"])).status == 404
    assert len(await stored(redis_url)) == 1


async def test_a_deleted_agent_is_soon_not_there(
    ann: Client, agent: str, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setattr(known, "LIFETIME", 0.05)
    assert (await ann.post("/api/messages", {"agentId": agent, **WEB})).status == 202
    await ann.delete(f"/api/agents/{agent}")

    async def refused() -> bool:
        return (await ann.post("/api/messages", {"agentId": agent, **WEB})).status == 422

    await eventually(refused, 2)


async def test_a_token_is_needed(gateway: Gateway) -> None:
    nobody = gateway.bearer("")
    for path in ("/api/messages/queue/stats", "/api/messages/queue/health", f"/api/messages/{NOWHERE}/status"):
        assert (await nobody.get(path)).status == 401
    assert (await nobody.post("/api/messages", WEB)).status == 401
    assert (await nobody.get(f"/api/conversations/{NOWHERE}/messages")).status == 401


# Once for an id -------------------------------------------------------------------------------------------------------


async def test_the_same_id_again_is_the_same_job_however_many_come_at_once(
    ann: Client, agent: str, redis_url: str
) -> None:
    body = {"agentId": agent, **WEB, "id": "order-42:hello"}
    answers = await asyncio.gather(*(ann.post("/api/messages", body) for _ in range(30)))
    assert {answer.status for answer in answers} == {202}
    assert all(answer.body == answers[0].body for answer in answers)
    told = answers[0].body["data"]
    assert (told["messageId"], told["jobId"]) == ("order-42:hello", "order-42:hello")
    [event] = await stored(redis_url)
    assert (event["messageId"], event["conversationId"]) == ("order-42:hello", told["conversationId"])
    status = await ann.get("/api/messages/order-42:hello/status")
    assert (status.status, status.body["data"]["state"]) == (200, "waiting")


async def test_a_key_whose_row_was_not_written_in_time_is_the_same_job(
    ann: Client, agent: str, redis_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event is out before the row of the key: without that row, the same request must still be the same message."""
    monkeypatch.setattr("gateway.endpoints.dispatch.DEADLINE", 0.5)
    await tables.execute("BEGIN")
    await tables.execute("LOCK TABLE idempotency_keys IN SHARE MODE")
    held = await ann.post("/api/messages", {"agentId": agent, **WEB}, Idempotency_Key="k-1")
    await tables.execute("ROLLBACK")
    assert held.status == 503
    monkeypatch.undo()
    while (answer := await ann.post("/api/messages", {"agentId": agent, **WEB}, Idempotency_Key="k-1")).status == 409:
        await asyncio.sleep(0.05)  # the first is given up, and its transaction not over yet
    assert answer.status == 202
    others = await ann.post("/api/messages", {"agentId": agent, **WEB}, Idempotency_Key="k-2")
    assert others.body["data"]["messageId"] != answer.body["data"]["messageId"]
    stored_ids = [event["messageId"] for event in await stored(redis_url)]
    assert len(stored_ids) == 2
    assert answer.body["data"]["messageId"] in stored_ids


@pytest.mark.parametrize(
    "changes", [{"message": "other"}, {"channel": "whatsapp", "channelMetadata": {"to": "123456"}}]
)
async def test_an_id_of_another_message_is_a_conflict_and_loses_nothing_in_silence(
    changes: dict[str, Any], ann: Client, agent: str, redis_url: str, tables: Tables
) -> None:
    body = {"agentId": agent, **WEB, "id": "m-1"}
    assert (await ann.post("/api/messages", body)).status == 202
    answer = await ann.post("/api/messages", {**body, **changes})
    assert (answer.status, answer.body["detail"]) == (409, "this id belongs to another message")
    assert [event["message"] for event in await stored(redis_url)] == [WEB["message"]]


async def test_ids_are_a_users_own(ann: Client, agent: str, gateway: Gateway, redis_url: str) -> None:
    """Also one that would read the same, put together carelessly."""
    told = []
    for user, organization in (("ann", "acme"), ("bob", "acme"), ("ann", "umbrella"), ("m bob", "acme")):
        client = gateway.caller(user, organization)
        own = (await client.post("/api/agents", {"name": "Own"})).body["id"]
        answer = await client.post("/api/messages", {"agentId": own, **WEB, "id": "m-1"})
        assert answer.status == 202
        told.append(answer.body["data"]["conversationId"])
        assert (await client.get("/api/messages/m-1/status")).status == 200
    assert len(set(told)) == 4
    assert len(await stored(redis_url)) == 4
    assert (await gateway.caller("eve", "acme").get("/api/messages/m-1/status")).status == 404


async def test_an_id_that_we_made_is_nobody_elses(ann: Client, agent: str, gateway: Gateway) -> None:
    """A message id of ours is its event's id: knowing it must not help, and taking it must not disturb."""
    told = (await ann.post("/api/messages", {"agentId": agent, **WEB})).body["data"]
    bob = gateway.caller("bob", "acme")
    own = (await bob.post("/api/agents", {"name": "Own"})).body["id"]
    assert (await bob.get(f"/api/messages/{told['messageId']}/status")).status == 404
    assert (await bob.post("/api/messages", {"agentId": own, **WEB, "id": told["messageId"]})).status == 202
    for client in (ann, bob):
        assert (await client.get(f"/api/messages/{told['messageId']}/status")).body["data"]["state"] == "waiting"


async def test_an_idempotency_key_does_the_same(ann: Client, agent: str, redis_url: str) -> None:
    answers = [await ann.post("/api/messages", {"agentId": agent, **WEB}, Idempotency_Key="k") for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert answers[0].status == answers[1].status == 202
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert len(await stored(redis_url)) == 1


@pytest.mark.parametrize("message", [NOWHERE, "m-1", "x" * 200, "a%20b", "01a20342-0000-7000-8000-000000000001"])
async def test_a_message_that_nobody_knows_is_not_found(message: str, ann: Client) -> None:
    assert (await ann.get(f"/api/messages/{message}/status")).status == 404


# In a transaction of the caller's -------------------------------------------------------------------------------------


def asked(agent: str, **more: Any) -> NewMessage:
    return NewMessage.model_validate_json(orjson.dumps({"agentId": agent, **WEB, **more}))


async def test_row_and_event_commit_together(ann: Client, agent: str, bus: EventBus, tables: Tables) -> None:
    async def fail() -> None:
        async with bus.transaction() as tx:
            await accept(tx, "acme", "ann", "standard", asked(agent))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [await tables.count(name) for name in ("messages", "conversations", "eventbus_outbox")] == [0, 0, 0]
    conversation = conversations.begin("acme", "ann", "whatsapp:123")
    assert conversation == conversations.begin("acme", "ann", "whatsapp:123")
    async with bus.transaction() as tx:
        told = await accept(tx, "acme", "ann", "premium", asked(agent, conversationId=str(conversation)))
    [event] = await tables.events("message.received")
    assert (event["organization"], orjson.loads(event["meta"])["priority"]) == ("acme", 3)
    assert orjson.loads(event["data"])["messageId"] == told.data.message_id
    status = await ann.get(f"/api/messages/{told.data.message_id}/status")
    assert status.status == 200, "it is known before the relay has been"
    [said] = await ann.all_of(f"/api/conversations/{conversation}/messages")
    assert (said["role"], said["message"]) == ("user", WEB["message"])


async def test_both_ways_in_are_one_job(ann: Client, agent: str, bus: EventBus, tables: Tables, redis_url: str) -> None:
    """Which one is worked on is decided by the row: see tests/gateway/test_messages_answered.py."""
    async with bus.transaction() as tx:
        first = await accept(tx, "acme", "ann", "standard", asked(agent, id="m-1"))
        again = await accept(tx, "acme", "ann", "standard", asked(agent, id="m-1"))
    assert first == again
    assert len(await tables.events("message.received")) == 1
    answer = await ann.post("/api/messages", {"agentId": agent, **WEB, "id": "m-1"})
    assert answer.body["data"]["conversationId"] == str(first.data.conversation_id)


# The queue ------------------------------------------------------------------------------------------------------------


async def test_the_queue_is_counted(ann: Client, agent: str, bus: EventBus) -> None:
    async def stats() -> dict[str, int]:
        answer = await ann.get("/api/messages/queue/stats")
        assert (answer.status, answer.body["success"]) == (200, True)
        found: dict[str, int] = answer.body["data"]
        return found

    nothing = dict.fromkeys(("waiting", "active", "completed", "failed", "delayed", "paused", "total"), 0)
    assert await stats() == nothing
    async with working(bus, group):  # it makes the group
        await eventually(lambda: _has_group(bus))
    for _ in range(3):
        await ann.post("/api/messages", {"agentId": agent, **WEB})
    assert await stats() == nothing | {"waiting": 3, "total": 3}
    await bus.groups.pause("message")
    assert await stats() == nothing | {"paused": 3, "total": 3}


async def _has_group(bus: EventBus) -> bool:
    return any(stream.groups for stream in await bus.transport.inspect(["message"]))


async def test_a_queue_is_healthy_if_somebody_works_for_it(
    ann: Client, agent: str, bus: EventBus, redis_url: str
) -> None:
    async def health() -> tuple[int, bool, bool]:
        answer = await ann.get("/api/messages/queue/health")
        assert set(answer.body["data"]["stats"]) >= {"waiting", "total"}
        return answer.status, answer.body["success"], answer.body["data"]["healthy"]

    assert await health() == (200, True, True), "nothing waits"
    await bus.groups.pause("message")
    assert await health() == (503, False, False)
    await bus.groups.resume("message")
    async with working(bus, group):
        await eventually(lambda: _has_group(bus))
    async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        for lane in [key async for key in client.scan_iter("eb:{message}:stream*")]:
            for consumer in await client.xinfo_consumers(lane, "message"):
                await client.xgroup_delconsumer(lane, "message", consumer["name"])
    await ann.post("/api/messages", {"agentId": agent, **WEB})
    assert await health() == (503, False, False), "and there is no worker"
