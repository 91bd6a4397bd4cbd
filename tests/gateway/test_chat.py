"""Messages over /ws/chat: queued and processing, what is refused, and how much one client may say."""

import json
import time
from typing import Any

import pytest

from eventbus import EventBus, Unavailable
from gateway.socket import chat, websocket
from gateway.socket.chat import Allowance
from handlers.common.pushing import push
from handlers.message import service
from handlers.message.models import MAX_MESSAGE
from tests.gateway.client import Client, Gateway
from tests.gateway.test_auth import claims, sign
from tests.gateway.test_leads import NOWHERE
from tests.gateway.test_messages import stored
from tests.gateway.test_websocket import closed, receive


@pytest.fixture
async def agent(ann: Client) -> str:
    answer = await ann.post("/api/agents", {"name": "Weather"})
    found: str = answer.body["id"]
    return found


async def say(socket: Any, agent: str, content: str = "Hi", **more: Any) -> None:
    await socket.send_json({"type": "message", "data": {"agentId": agent, "content": content, **more}})


async def test_a_message_is_queued_then_processing(ann: Client, agent: str, redis_url: str) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await say(socket, agent, "What is\nthe weather?")
        queued, processing = await receive(socket), await receive(socket)
    assert queued == {"type": "queued", "data": {"message": queued["data"]["message"]}}
    told = processing["data"]
    assert processing == {
        "type": "processing",
        "data": {
            "conversationId": told["conversationId"],
            "messageId": told["messageId"],
            "jobId": told["messageId"],
            "status": "processing",
        },
    }
    [event] = await stored(redis_url)
    assert (event["messageId"], event["conversationId"]) == (told["messageId"], told["conversationId"])
    assert (event["message"], event["agentId"], event["userId"]) == ("What is\nthe weather?", agent, "ann")
    assert (event["channel"], event["channelMetadata"]) == ("web", {})


async def test_the_same_id_again_is_the_same_message(ann: Client, agent: str, redis_url: str) -> None:
    """Also on another socket: whoever is cut off sends again what he has had no answer to."""
    told = []
    for _ in range(2):
        async with ann.socket() as socket:
            await receive(socket)
            for _ in range(2):
                await say(socket, agent, id="mine-1")
                assert (await receive(socket))["type"] == "queued"
                told.append((await receive(socket))["data"])
    assert told == [told[0]] * 4
    assert told[0]["messageId"] == "mine-1"
    assert len(await stored(redis_url)) == 1
    async with ann.socket() as socket:
        await receive(socket)
        await say(socket, agent, "something else", id="mine-1")
        frame = await receive(socket)
        assert (frame["type"], frame["data"]["code"], frame["data"]["messageId"]) == ("error", "CONFLICT", "mine-1")


BAD: dict[str, dict[str, Any]] = {
    "agentId": {"agentId": "nobody"},
    "agentId: ": {"agentId": 5},
    "content": {"content": ""},
    "content: ": {"content": " \n "},
    "content:": {"content": 5},
    "content: S": {"content": "x" * (MAX_MESSAGE + 1)},
    "control": {"content": "\0"},
    "conversationId": {"conversationId": "x"},
    "id": {"id": "no blanks"},
    "colour": {"colour": "red"},
}


@pytest.mark.parametrize("field", BAD)
async def test_a_message_that_is_not_as_it_must_be_is_refused(
    field: str, ann: Client, agent: str, redis_url: str
) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_json({"type": "message", "data": {"agentId": agent, "content": "Hi", **BAD[field]}})
        frame = await receive(socket)
        assert (frame["type"], frame["data"]["code"]) == ("error", "INVALID")
        assert field.rstrip(" :S") in frame["data"]["message"]
        await say(socket, agent)
        assert (await receive(socket))["type"] == "queued", "the socket stays open"
    assert len(await stored(redis_url)) == 1


@pytest.mark.parametrize(
    "frame", ['{"type": "message"}', '{"type": "message", "data": []}', '{"type": "message", "data": {}}']
)
async def test_a_message_without_what_it_needs_is_refused(frame: str, ann: Client) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_str(frame)
        assert (await receive(socket))["data"]["code"] == "INVALID"


async def test_unknown_fields_beside_the_data_are_refused(ann: Client, agent: str, redis_url: str) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await socket.send_json({"type": "message", "data": {"agentId": agent, "content": "Hi"}, "extra": 1})
        frame = await receive(socket)
    assert frame["data"]["code"] == "INVALID"
    assert "extra" in frame["data"]["message"]
    assert await stored(redis_url) == []


async def test_anothers_agent_and_conversation_are_not_there(
    ann: Client, agent: str, gateway: Gateway, stranger: Client, redis_url: str
) -> None:
    async with ann.socket() as socket:
        await receive(socket)
        await say(socket, agent)
        await receive(socket)
        conversation = (await receive(socket))["data"]["conversationId"]
    for client in (gateway.caller("bob"), stranger, gateway.caller("ann", "umbrella")):
        own = (await client.post("/api/agents", {"name": "Own"})).body["id"]
        async with client.socket() as socket:
            await receive(socket)
            for fields in ({"agent": agent}, {"agent": own, "conversationId": conversation}):
                await say(socket, **fields)
                frame = await receive(socket)
                assert (frame["type"], frame["data"]["code"]) == ("error", "INVALID")
    async with ann.socket() as socket:
        await receive(socket)
        await say(socket, NOWHERE)
        assert (await receive(socket))["data"]["code"] == "INVALID"
    assert len(await stored(redis_url)) == 1


async def test_what_cannot_be_stored_now_is_told_and_may_be_sent_again(
    ann: Client, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise Unavailable("Redis at 127.0.0.1", "no answer")

    async def broken(*_: Any) -> Any:
        raise RuntimeError("a secret of ours")

    accept = service.accept_now
    async with ann.socket() as socket:
        await receive(socket)
        for stand_in, code in ((away, "UNAVAILABLE"), (broken, "INTERNAL")):
            monkeypatch.setattr(service, "accept_now", stand_in)
            await say(socket, agent, id="mine")
            frame = await receive(socket)
            assert (frame["data"]["code"], frame["data"]["messageId"]) == (code, "mine")
            assert "127.0.0.1" not in str(frame)
            assert "a secret of ours" not in str(frame)
        monkeypatch.setattr(service, "accept_now", accept)
        await say(socket, agent, id="mine")
        assert (await receive(socket))["type"] == "queued"


async def test_processing_comes_before_what_a_quick_worker_has_to_say(
    ann: Client, agent: str, bus: EventBus, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = service.accept_now

    async def slow(*arguments: Any) -> Any:
        answer = await accept(*arguments)
        await push(bus, "acme", "ann", "progress", {"messageId": answer.data.message_id, "progress": 10})
        assert (await receive(other))["type"] == "progress", "the gateway has had it"
        return answer

    async with ann.socket() as socket, ann.socket() as other:
        for one in (socket, other):
            await receive(one)
        await say(socket, agent)
        assert [(await receive(socket))["type"] for _ in range(2)] == ["queued", "processing"]
        monkeypatch.setattr(service, "accept_now", slow)
        await say(socket, agent)
        assert [(await receive(socket))["type"] for _ in range(3)] == ["queued", "processing", "progress"]


async def test_each_message_is_a_story_of_its_own(ann: Client, agent: str, bus: EventBus) -> None:
    ids = []
    async with ann.socket() as socket:
        await receive(socket)
        for _ in range(2):
            await say(socket, agent)
            await receive(socket)
            ids.append((await receive(socket))["data"]["messageId"])
    correlations = set()
    for message_id in ids:
        standing = await bus.events.locate(message_id, ["message"])
        assert standing.envelope is not None
        correlations.add(standing.envelope.correlation)
        assert dict(standing.envelope.metadata)["userId"] == "ann"
    assert len(correlations) == 2


# Bounds ---------------------------------------------------------------------------------------------------------------


async def test_who_says_too_much_is_sent_away(ann: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "FRAMES_PER_SECOND", 1.0)
    async with ann.socket() as socket, gateway.caller("bob").socket() as other:
        await receive(socket)
        for _ in range(chat.FRAMES_AT_ONCE):
            await socket.send_str('{"type": "ping"}')
        for _ in range(chat.FRAMES_AT_ONCE):
            assert (await receive(socket))["type"] == "pong"
        await socket.send_str('{"type": "ping"}')
        await socket.send_str('{"type": "ping"}')
        assert await closed(socket) == 4429
        await receive(other)
        await other.send_str('{"type": "ping"}')
        assert (await receive(other))["type"] == "pong"


def test_an_allowance_fills_up_again() -> None:
    now = 0.0
    allowance = Allowance(10.0, 3, lambda: now)
    assert [allowance.take() for _ in range(4)] == [True] * 3 + [False]
    now = 0.1
    assert [allowance.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [allowance.take() for _ in range(4)] == [True] * 3 + [False]


async def test_a_user_has_so_many_sockets(ann: Client, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SOCKETS_PER_USER", 2)
    async with ann.socket() as first, ann.socket() as second:
        for socket in (first, second):
            await receive(socket)
        async with ann.socket() as third:
            assert await closed(third) == 4429
        async with gateway.caller("bob").socket() as other:
            assert (await receive(other))["type"] == "connected"
        await first.close()
        async with ann.socket() as third:
            assert (await receive(third))["type"] == "connected"
            await second.send_str('{"type": "ping"}')
            assert (await receive(second))["type"] == "pong"


async def test_a_socket_ends_with_its_token(gateway: Gateway) -> None:
    brief = sign(claims(exp=int(time.time()) + 2))
    async with gateway.bearer(brief).socket() as socket:
        assert (await receive(socket))["type"] == "connected"
        began = time.time()
        assert await closed(socket) == 4401
        assert began < time.time() < began + 3


async def test_a_servers_ping_may_be_a_clients(ann: Client) -> None:
    """Clients may send protocol pings, and pongs that nobody asked for."""
    async with ann.socket() as socket:
        await receive(socket)
        for odd in (b"", b"1", b"99999999999999999999999", b"x" * 125, "²".encode()):
            await socket.pong(odd)
        await socket.ping(b"are you there?")
        await socket.send_str(json.dumps({"type": "ping", "data": {}}))
        assert await receive(socket) == {"type": "pong"}


async def test_a_token_for_ages_opens_a_socket(gateway: Gateway) -> None:
    async with gateway.bearer(sign(claims(exp=10**30))).socket() as socket:
        assert (await receive(socket))["type"] == "connected"
