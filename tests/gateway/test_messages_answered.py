"""From a message to its response: the workflow's answers of every kind, and what is told on the way."""

import asyncio
import dataclasses
import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from redis.asyncio import Redis

from eventbus import Backoff, EventBus, Origin, SlowLane
from eventbus.contract.codec import envelop
from eventbus.contract.outgoing import Outgoing
from handlers.message import workflow
from handlers.message.events import Channel, MessageReceived
from handlers.message.handlers import message as group
from handlers.message.service import accept
from handlers.partners.services import SERVICES, Services
from tests.gateway import n8n as peer
from tests.gateway.client import Client, Gateway
from tests.gateway.conftest import Tables
from tests.gateway.n8n import N8N, Answering, Asked, echo
from tests.gateway.test_messages import asked as new_message
from tests.waiting import PATIENCE, eventually, until
from tests.working import working

SECRET = "whsec_" + b64encode(b"a key of the tests").decode()


@pytest.fixture
async def n8n(bus: EventBus) -> AsyncIterator[N8N]:
    async with peer.serving() as n8n:
        bus.resources.provide(SERVICES, Services(n8n_base_url=n8n.url, n8n_signing_secret=SECRET, n8n_timeout=0.5))
        yield n8n


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a tenth."""
    monkeypatch.setattr(workflow, "PAUSE", 0.3)
    registered = group.handlers["message.received"]
    fast = dataclasses.replace(registered.retry, backoff=Backoff.fixed(0.2))
    monkeypatch.setitem(group.handlers, "message.received", dataclasses.replace(registered, retry=fast))


@pytest.fixture
async def answering(bus: EventBus, n8n: N8N) -> AsyncIterator[N8N]:
    """N8N, and a worker that asks it."""
    async with working(bus, group):
        yield n8n


@pytest.fixture
async def agent(ann: Client) -> str:
    new = {"name": "Weather", "model": "gpt-4", "systemPrompt": "Be brief.", "workflow": "weather"}
    answer = await ann.post("/api/agents", new)
    assert answer.status == 201, answer
    found: str = answer.body["id"]
    return found


async def ask(client: Client, agent: str, text: str = "Rain?", **more: Any) -> dict[str, Any]:
    answer = await client.post("/api/messages", {"agentId": agent, "message": text, "channel": "web", **more})
    assert answer.status == 202, answer
    told: dict[str, Any] = answer.body["data"]
    return told


async def standing(client: Client, message_id: str) -> dict[str, Any]:
    answer = await client.get(f"/api/messages/{message_id}/status")
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.body["data"]
    return found


async def ended(client: Client, message_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        found = await standing(client, message_id)
        return found if found["state"] in {"completed", "failed"} else {}

    return await eventually(look)


async def test_a_message_is_answered(ann: Client, agent: str, answering: N8N, tables: Tables) -> None:
    told = await ask(ann, agent)
    found = await ended(ann, told["messageId"])
    assert found == {
        "messageId": told["messageId"],
        "state": "completed",
        "progress": 100,
        "attempts": 1,
        "finishedOn": found["finishedOn"],
    }
    [asked] = answering.asked
    assert asked.workflow == "weather"
    assert asked.payload == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "organizationId": "acme",
        "userId": "ann",
        "channel": "web",
        "message": "Rain?",
        "agent": {"id": agent, "name": "Weather", "model": "gpt-4", "systemPrompt": "Be brief."},
        "history": [],
    }
    [event] = await tables.events("message.responded")
    data = orjson.loads(event["data"])
    assert data["metadata"].pop("processingTime") >= 0
    assert data == {
        "messageId": told["messageId"],
        "conversationId": told["conversationId"],
        "agentId": agent,
        "userId": "ann",
        "channel": "web",
        "channelMetadata": {},
        "message": "You said: Rain?",
        "metadata": {"model": "gpt-test", "tokensUsed": 7, "finishReason": "stop"},
    }
    said = await ann.all_of(f"/api/conversations/{told['conversationId']}/messages")
    assert [(one["role"], one["message"], one["messageId"]) for one in said] == [
        ("user", "Rain?", told["messageId"]),
        ("assistant", "You said: Rain?", told["messageId"]),
    ]


# What the workflow says -----------------------------------------------------------------------------------------------


async def test_the_call_is_signed_by_the_events_id(ann: Client, agent: str, answering: N8N) -> None:
    told = await ask(ann, agent)
    await ended(ann, told["messageId"])
    [asked] = answering.asked
    message_id, timestamp = asked.headers["webhook-id"], asked.headers["webhook-timestamp"]
    assert message_id == told["messageId"], "that is the event's id where we made it"
    assert abs(int(timestamp) - time.time()) < 30
    signed = b".".join((message_id.encode(), timestamp.encode(), asked.body))
    digest = hmac.new(b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    assert asked.headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 422])
async def test_a_refusal_is_final_at_once_and_says_why(
    status: int, ann: Client, agent: str, answering: N8N, tables: Tables
) -> None:
    async def refuse(_asked: Asked) -> web.Response:
        return web.Response(status=status, text="no such webhook", headers={"Location": "/elsewhere"})

    answering.answer = refuse
    told = await ask(ann, agent)
    found = await ended(ann, told["messageId"])
    assert (found["state"], found["attempts"]) == ("failed", 1)
    assert found["error"] == f"Declined: the workflow answered {status}: no such webhook"
    assert found["finishedOn"] > 0
    assert len(answering.asked) == 1
    [said] = await ann.all_of(f"/api/conversations/{told['conversationId']}/messages")
    assert said["role"] == "user", "what was asked is kept"
    assert await tables.events("message.responded") == []


@pytest.mark.parametrize(
    "answer", [{}, [], {"message": ""}, {"message": " "}, {"message": 5}, {"message": "a", "tokensUsed": -1}]
)
async def test_an_answer_that_is_none_is_final_at_once(answer: Any, ann: Client, agent: str, answering: N8N) -> None:
    async def answer_so(_asked: Asked) -> web.Response:
        return web.json_response(answer)

    answering.answer = answer_so
    found = await ended(ann, (await ask(ann, agent))["messageId"])
    assert (found["state"], found["attempts"], len(answering.asked)) == ("failed", 1, 1)
    assert found["error"].startswith("Reject: the workflow's answer is none: ")


@pytest.mark.parametrize(
    "first",
    [
        web.Response(status=408),
        web.Response(status=429),
        web.Response(status=500, text="oh"),
        web.Response(status=503),
        web.Response(text="<html>"),
    ],
    ids=["408", "429", "500", "503", "no JSON"],
)
async def test_what_may_get_better_is_tried_again(first: web.Response, ann: Client, agent: str, answering: N8N) -> None:
    async def fail_once(asked: Asked) -> web.Response:
        return first if len(answering.asked) == 1 else await echo(asked)

    answering.answer = fail_once
    found = await ended(ann, (await ask(ann, agent))["messageId"])
    assert (found["state"], found["attempts"], len(answering.asked)) == ("completed", 2, 2)
    ids = {asked.headers["webhook-id"] for asked in answering.asked}
    assert len(ids) == 1, "the workflow can drop repeats"


async def test_the_workflow_says_when(ann: Client, agent: str, answering: N8N) -> None:
    at: list[float] = []

    async def busy(asked: Asked) -> web.Response:
        at.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "1"}) if len(at) == 1 else await echo(asked)

    answering.answer = busy
    assert (await ended(ann, (await ask(ann, agent))["messageId"]))["state"] == "completed"
    assert at[1] - at[0] >= 1.0, "although the group would be there after a fifth of that"


def slow_until(release: asyncio.Event) -> Answering:
    """The workflow `slow` says nothing until then; others echo."""

    async def answer(asked: Asked) -> web.Response:
        if asked.workflow == "slow":
            await release.wait()
        return await echo(asked)

    return answer


async def test_a_workflow_that_hangs_is_given_up_in_time_and_holds_up_no_other(
    ann: Client, agent: str, answering: N8N
) -> None:
    release = asyncio.Event()

    answering.answer = slow_until(release)
    slow = (await ann.post("/api/agents", {"name": "Slow", "workflow": "slow"})).body["id"]
    hanging = await ask(ann, slow)
    await until(lambda: answering.asked)
    others = [await ask(ann, agent) for _ in range(10)]
    assert [(await ended(ann, told["messageId"]))["state"] for told in others] == ["completed"] * 10
    assert (await standing(ann, hanging["messageId"]))["state"] in {"active", "delayed"}

    async def given_up() -> bool:
        return "has not answered within 0.5 s" in str((await standing(ann, hanging["messageId"])).get("error"))

    await eventually(given_up)
    release.set()
    assert (await ended(ann, hanging["messageId"]))["state"] == "completed"


async def test_many_that_hang_hold_up_no_other(
    ann: Client, agent: str, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one process answers at a time, of one workflow: the places go to others, and it gets no more calls."""
    release = asyncio.Event()

    monkeypatch.setattr(group, "slow_lane", SlowLane(45, after=0.6))
    monkeypatch.setattr(workflow, "SLOW_AFTER", 0.3)
    slow = (await ann.post("/api/agents", {"name": "Slow", "workflow": "slow"})).body["id"]
    async with peer.serving() as n8n, working(bus, group):
        n8n.answer = slow_until(release)
        bus.resources.provide(SERVICES, Services(n8n_base_url=n8n.url, n8n_timeout=30))
        hanging = [await ask(ann, slow) for _ in range(3 * group.concurrency)]
        await until(lambda: len(n8n.asked) >= group.concurrency)
        others = [await ask(ann, agent) for _ in range(10)]
        assert [(await ended(ann, told["messageId"]))["state"] for told in others] == ["completed"] * 10
        asked = [asked for asked in n8n.asked if asked.workflow == "slow"]
        # One whose call began late, on a busy machine, is not slow yet when the first place is free.
        assert len(asked) < 2 * group.concurrency, "the rest would only hang as well"
        release.set()
        found = [await ended(ann, told["messageId"]) for told in hanging]
    assert [(one["state"], one["attempts"]) for one in found] == [("completed", 1)] * len(hanging)


async def test_nobody_configured_a_workflow_service(ann: Client, agent: str, bus: EventBus) -> None:
    bus.resources.provide(SERVICES, Services(n8n_base_url=None))
    async with working(bus, group):
        found = await ended(ann, (await ask(ann, agent))["messageId"])
    assert (found["state"], found["attempts"]) == ("failed", 1)
    assert found["error"] == "Reject: The workflow service is not configured: set N8N_BASE_URL"


# An outage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 40])
async def test_an_outage_opens_the_circuit_and_loses_nothing(
    count: int, ann: Client, agent: str, answering: N8N, bus: EventBus
) -> None:
    """3 s with pauses of 0.3 s, as 50 s with those of 5 s: far more than three attempts would last."""
    down = True

    async def answer(asked: Asked) -> web.Response:
        return web.Response(status=500) if down else await echo(asked)

    answering.answer = answer
    told = await asyncio.gather(*(ask(ann, agent) for _ in range(count)))

    async def is_open() -> bool:
        return any(state.is_open for state in await bus.transport.circuits.troubled())

    await eventually(is_open)
    await asyncio.sleep(3)
    assert len(answering.asked) <= 3 + 5 + 3 / 0.3, "those under way when it opened, and one a pause"
    assert await is_open()
    down = False
    for one in told:
        found = await ended(ann, one["messageId"])
        assert found["state"] == "completed", found
        assert found["attempts"] <= 3
    assert await bus.transport.circuits.troubled() == []


async def test_a_message_that_fails_its_workflow_alone_does_not_stop_the_others(
    ann: Client, agent: str, answering: N8N
) -> None:
    async def answer(asked: Asked) -> web.Response:
        return web.Response(status=500) if asked.payload["message"] == "poison" else await echo(asked)

    answering.answer = answer
    poison = await ask(ann, agent, "poison")
    await until(lambda: len(answering.asked) >= 3)
    others = [await ask(ann, agent) for _ in range(10)]
    assert [(await ended(ann, told["messageId"]))["state"] for told in others] == ["completed"] * 10
    for _ in range(20):  # and while others are answered, it spends its attempts
        await ended(ann, (await ask(ann, agent))["messageId"])
        if (await standing(ann, poison["messageId"]))["state"] == "failed":
            break


async def test_who_builds_a_workflow_that_fails_stops_nobody_elses(
    ann: Client, agent: str, answering: N8N, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "PAUSE", 60.0)

    async def answer(asked: Asked) -> web.Response:
        return web.Response(status=500) if asked.workflow == "broken" else await echo(asked)

    answering.answer = answer
    broken = (await ann.post("/api/agents", {"name": "Broken", "workflow": "broken"})).body["id"]
    await asyncio.gather(*(ask(ann, broken) for _ in range(5)))

    async def is_open() -> bool:
        return [state.name for state in await bus.transport.circuits.troubled() if state.is_open] == ["n8n:broken"]

    await eventually(is_open)
    told = [await ask(ann, agent) for _ in range(5)]
    assert [(await ended(ann, one["messageId"]))["state"] for one in told] == ["completed"] * 5
    assert await is_open()


async def test_a_dead_letter_that_is_replayed_is_answered(
    ann: Client, agent: str, answering: N8N, bus: EventBus, tables: Tables
) -> None:
    async def refuse(_asked: Asked) -> web.Response:
        return web.Response(status=404)

    answering.answer = refuse
    told = await ask(ann, agent)
    assert (await ended(ann, told["messageId"]))["state"] == "failed"
    answering.answer = echo
    [letter] = await bus.transport.dead_letters("message")
    await bus.transport.replay(letter)
    await eventually(lambda: _has(tables, "message.responded"))

    async def is_completed() -> bool:
        return bool((await standing(ann, told["messageId"]))["state"] == "completed")

    await eventually(is_completed)
    assert await responses(tables) == (1, 1)


# What is told on the way ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def frames_of(client: Client) -> AsyncIterator[list[Any]]:
    """Every frame that a socket of this user gets, as it comes."""
    frames: list[Any] = []

    async def collect(socket: Any) -> None:
        async for received in socket:
            frames.append(orjson.loads(received.data))  # noqa: PERF401 - as they come

    async with client.socket() as socket:
        collecting = asyncio.create_task(collect(socket))
        await until(lambda: frames)
        yield frames
    await collecting


async def test_the_users_sockets_see_it_come(ann: Client, agent: str, answering: N8N, gateway: Gateway) -> None:
    async with frames_of(ann) as frames, frames_of(gateway.caller("bob", "acme")) as others:
        told = await ask(ann, agent)
        while frames[-1]["data"].get("progress") != 100:  # at first the gateway may not be listening yet
            told = await ask(ann, agent)
            await ended(ann, told["messageId"])
        place = {"callbackUrl": "https://example.com"}
        elsewhere = await ask(ann, agent, channel="api", channelMetadata=place)
        await ended(ann, elsewhere["messageId"])
        last = await ask(ann, agent)
        await until(lambda: frames[-1]["data"] == {"messageId": last["messageId"], "progress": 100})
    mine = [frame for frame in frames if frame["data"].get("messageId") == last["messageId"]]
    assert [frame["data"]["progress"] for frame in mine] == [10, 50, 80, 100]
    assert {frame["type"] for frame in mine} == {"progress"}
    assert elsewhere["messageId"] not in [frame["data"].get("messageId") for frame in frames]
    assert [frame["type"] for frame in others] == ["connected"]


async def test_the_users_sockets_hear_of_a_message_that_failed_for_good(
    ann: Client, agent: str, answering: N8N
) -> None:
    async def refuse(_asked: Asked) -> web.Response:
        return web.Response(status=404)

    answering.answer = refuse
    async with frames_of(ann) as frames:
        asked = []
        while frames[-1]["type"] != "error":
            asked.append((await ask(ann, agent))["messageId"])
            await ended(ann, asked[-1])
    data = frames[-1]["data"]
    assert data.pop("messageId") in asked
    assert data == {"code": "MESSAGE_FAILED", "message": "Declined: the workflow answered 404"}


async def test_the_response_goes_out_over_pub_sub(ann: Client, agent: str, answering: N8N, bus: EventBus) -> None:
    conversation = (await ask(ann, agent))["conversationId"]
    heard: dict[str, bytes] = {}

    async def listen(channel: str) -> None:
        async for message in bus.shared.listen(channel):
            if orjson.loads(message)["channel"] == "telegram":  # the first question came from the web
                heard[channel] = message
                return

    channels = ["pubsub:response:telegram", f"pubsub:conversation:{conversation}"]
    listening = [asyncio.create_task(listen(channel)) for channel in channels]
    while not all(task.done() for task in listening):  # at first nobody may be listening yet
        place: dict[str, Any] = {"channel": "telegram", "channelMetadata": {"chatId": 42}}
        told = await ask(ann, agent, conversationId=conversation, **place)
        await ended(ann, told["messageId"])
    for channel in channels:
        message = orjson.loads(heard[channel])
        assert message["metadata"].pop("processingTime") >= 0
        assert message.pop("timestamp").startswith("20")
        assert message.pop("messageId") != ""
        assert message == {
            "conversationId": conversation,
            "organizationId": "acme",
            "userId": "ann",
            "channel": "telegram",
            "channelMetadata": {"chatId": 42},
            "message": "You said: Rain?",
            "metadata": {"model": "gpt-test", "tokensUsed": 7, "finishReason": "stop"},
        }


async def test_what_was_said_before_goes_with_the_question(
    ann: Client, agent: str, answering: N8N, redis_url: str
) -> None:
    first = await ask(ann, agent, "one")
    conversation = first["conversationId"]
    await ended(ann, first["messageId"])
    for text in ("two", "three"):
        await ended(ann, (await ask(ann, agent, text, conversationId=conversation))["messageId"])
        if text == "two":
            async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
                [kept] = await client.keys("eb:recent:*")
                assert await client.zcard(kept) == 4
                await client.delete(kept)  # PostgreSQL has it as well
    histories = [[said["content"] for said in asked.payload["history"]] for asked in answering.asked]
    expected = ["one", "You said: one", "two", "You said: two"]
    assert histories == [[], expected[:2], expected]
    assert [said["role"] for said in answering.asked[2].payload["history"]] == ["user", "assistant"] * 2
    pages = await ann.all_of(f"/api/conversations/{conversation}/messages?limit=2")
    assert [said["message"] for said in pages] == [*expected, "three", "You said: three"]


# Twice, and what should not be there ----------------------------------------------------------------------------------


def received(agent: str | None, **changes: Any) -> MessageReceived:
    fields: dict[str, Any] = {
        "message_id": "m-1",
        "conversation_id": "01a20176-0000-7000-8000-00000000000c",
        "agent_id": agent,
        "user_id": "ann",
        "channel": Channel.WEB,
        "message": "Rain?",
    }
    return MessageReceived(**(fields | changes))


async def responses(tables: Tables) -> tuple[int, int]:
    """Rows, and events."""
    rows = await tables.number("SELECT count(*) FROM messages WHERE role = 'assistant'")
    return rows, len(await tables.events("message.responded"))


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_event_that_is_delivered_twice_is_answered_once(
    at_once: bool, agent: str, answering: N8N, tables: Tables, bus: EventBus
) -> None:
    envelope = envelop(received(agent), Origin(organization="acme"))

    async def when_both_have_asked(asked: Asked) -> web.Response:
        await until(lambda: len(answering.asked) == 2)
        return await echo(asked)

    if at_once:
        answering.answer = when_both_have_asked
    await bus.forward([Outgoing(envelope)] * (2 if at_once else 1))
    if not at_once:
        await eventually(lambda: _has(tables, "message.responded"))
        await bus.forward([Outgoing(envelope)])
    await eventually(lambda: _settled(bus))
    assert await responses(tables) == (1, 1)
    assert len(answering.asked) == (2 if at_once else 1), "what is answered is not asked again"


async def test_a_message_that_came_both_ways_is_answered_once(
    ann: Client, agent: str, answering: N8N, tables: Tables, bus: EventBus
) -> None:
    async with bus.transaction() as tx:
        await accept(tx, "acme", "ann", "standard", new_message(agent, id="m-1"))
    await ann.post(
        "/api/messages", {"agentId": agent, "message": "What is the weather?", "channel": "web", "id": "m-1"}
    )
    assert (await ended(ann, "m-1"))["state"] == "completed"
    await eventually(lambda: _settled(bus))
    assert await responses(tables) == (1, 1)
    assert len(answering.asked) == 1


async def test_an_agent_that_was_deleted_meanwhile(ann: Client, agent: str, bus: EventBus, n8n: N8N) -> None:
    told = await ask(ann, agent)
    await ann.delete(f"/api/agents/{agent}")
    async with working(bus, group):
        found = await ended(ann, told["messageId"])
    assert (found["state"], found["error"]) == ("failed", "Reject: there is no such agent")
    assert len(await ann.all_of(f"/api/conversations/{told['conversationId']}/messages")) == 1
    assert n8n.asked == []


async def test_events_that_no_gateway_would_have_made_change_nothing(
    agent: str, answering: N8N, tables: Tables, bus: EventBus, gateway: Gateway
) -> None:
    """POST /api/events takes any message.received from an admin: agents and conversations are still their users'."""
    theirs = (await ask(gateway.caller("ann"), agent))["conversationId"]
    await eventually(lambda: _has(tables, "message.responded"))
    own = (await gateway.caller("bob", "acme").post("/api/agents", {"name": "Own"})).body["id"]
    wrong = [
        received(None),
        received("first"),
        received(agent, user_id=None),
        received(agent, conversation_id="1"),
        received(own, user_id="bob", conversation_id=theirs),
    ]
    for event in wrong:
        await bus.publish(event, organization="acme")
    await bus.publish(received(agent))

    async def all_dead() -> bool:
        return len(await bus.transport.dead_letters("message")) == len(wrong) + 1

    await eventually(all_dead)
    errors = [letter.error for letter in await bus.transport.dead_letters("message")]
    assert len([error for error in errors if "a message needs an organization" in error]) == 5
    assert len([error for error in errors if "the conversation is another user's" in error]) == 1
    assert [await tables.count(name) for name in ("conversations", "messages", "eventbus_outbox")] == [1, 2, 1]
    assert len(answering.asked) == 1


async def _has(tables: Tables, kind: str) -> bool:
    return bool(await tables.events(kind))


async def _settled(bus: EventBus) -> bool:
    """Nothing waits, runs or rests."""
    counts = await bus.groups.counts(group)
    return counts[:3] == (0, 0, 0) and counts.completed > 0


async def test_status_outlives_what_redis_knows(
    ann: Client, agent: str, answering: N8N, redis_url: str, bus: EventBus
) -> None:
    told = await ask(ann, agent)
    await ended(ann, told["messageId"])
    async with Redis.from_url(redis_url, socket_timeout=PATIENCE) as client:
        await client.flushdb()
    found = await standing(ann, told["messageId"])
    assert (found["state"], found["progress"], found["finishedOn"] > 0) == ("completed", 100, True)
