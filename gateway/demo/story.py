"""One lead and one message, all the way, seen from outside: over HTTP, WebSocket, and by those that fail on purpose."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from gateway.demo.board import Board, NotSeen
from gateway.demo.outside import Outside
from gateway.demo.stage import RETRY_AFTER, USER, Stage, Witness

PATIENCE = 15.0  # seconds for a step
ENRICHMENT_DELAY, ENRICHMENT_MARGIN = 10.0, 2.0  # seconds; the machine may be busy
FUNNEL = {
    "name": "Demo",
    "steps": [
        {
            "name": "New",
            "taskTemplates": [{"title": "Call", "dueInHours": 24}, {"title": "Send offer", "after": "Call"}],
        },
        {"name": "Won", "taskTemplates": [{"title": "Say thanks"}]},
    ],
}
LEAD = {
    "name": "Grace Hopper",
    "email": "grace@example.com",
    "phone": "+12025550100",
    "company": "Navy",
    "assignedTo": USER,
}

Json = dict[str, Any]  # what the gateway answers; the contract is API.md's, and tested elsewhere


class Client:
    """An integrator with a token."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def post(self, path: str, body: Json | None = None) -> Json:
        async with self._session.post(self._url + path, json=body) as response:
            return await _answer(response)

    async def get(self, path: str) -> Json:
        async with self._session.get(self._url + path) as response:
            return await _answer(response)


async def tell(built: Stage, board: Board) -> None:
    """Every step, in the order in which a person would take them; what runs by itself is awaited side by side."""
    headers = {"Authorization": f"Bearer {built.token}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        client = Client(session, built.url)
        funnel = await client.post("/api/funnels", FUNNEL)
        board.seen("funnel", " -> ".join(step["name"] for step in funnel["steps"]))
        async with session.ws_connect(f"{built.url}/ws/chat", params={"token": built.token}) as socket:
            board.seen("socket", (await socket.receive_json(timeout=PATIENCE))["type"])
            lead = await client.post("/api/leads", {**LEAD, "funnelId": funnel["id"]})
            board.seen("lead", f"201, {lead['id']}")
            await asyncio.gather(
                _witnessed(built.witness, board, lead["id"]),
                _notified(socket, board, lead["id"]),
                _worked_off(client, board, lead["id"]),
                _scored(client, board, lead["id"]),
                _mailed(client, built.outside, board, lead["id"]),
                _enriched(client, built.witness, board, lead["id"]),
            )
            await _timeline(client, board, lead["id"])
            await _answered(client, socket, built.outside, board)


async def _witnessed(witness: Witness, board: Board, lead_id: str) -> None:
    with board.step("failed"):
        await _until(witness.attempts, (lead_id, 1))
        failed_at = time.monotonic()
        board.seen("failed", "RuntimeError: on purpose")
    with board.step("retried"):
        await _until(witness.attempts, (lead_id, 2))
        board.seen("retried", f"attempt 2 after {time.monotonic() - failed_at:.2f} s, asked for {RETRY_AFTER:.0f} s")


async def _notified(socket: aiohttp.ClientWebSocketResponse, board: Board, lead_id: str) -> None:
    with board.step("notification"):
        while True:
            frame = await socket.receive_json(timeout=PATIENCE)
            if frame["type"] == "notification" and lead_id in (frame["data"]["actionUrl"] or ""):
                board.seen("notification", frame["data"]["message"])
                return


async def _worked_off(client: Client, board: Board, lead_id: str) -> None:
    with board.step("tasks"):
        [first] = await _eventually(lambda: _tasks(client, lead_id))
        board.seen("tasks", first["title"])
    with board.step("next task"):
        await client.post(f"/api/tasks/{first['id']}/complete")
        tasks = await _eventually(lambda: _tasks(client, lead_id), enough=2)
        board.seen("next task", next(task["title"] for task in tasks if task["id"] != first["id"]))


async def _scored(client: Client, board: Board, lead_id: str) -> None:
    with board.step("score"):
        [score] = await _eventually(lambda: _score(client, lead_id))
        board.seen("score", str(score))


async def _mailed(client: Client, outside: Outside, board: Board, lead_id: str) -> None:
    with board.step("mail"):
        await _eventually(lambda: _handled_by(client, lead_id, "email"))
        board.seen("mail", await outside.taken("mail", PATIENCE) if outside.is_mail else "by the configured one")


async def _enriched(client: Client, witness: Witness, board: Board, lead_id: str) -> None:
    with board.step("enrichment"):
        while True:
            async with asyncio.timeout(ENRICHMENT_DELAY + PATIENCE):
                found, made = await witness.enrichments.get()
            if found == lead_id:
                break
        waited = time.time() - made
        if not ENRICHMENT_DELAY <= waited <= ENRICHMENT_DELAY + ENRICHMENT_MARGIN:
            raise NotSeen(f"it came after {waited:.2f} s")
        [enrichment] = await _eventually(lambda: _enrichment(client, lead_id))
        board.seen("enrichment", f"it came after {waited:.2f} s; source: {enrichment['source']}")


async def _timeline(client: Client, board: Board, lead_id: str) -> None:
    with board.step("timeline"):
        items = (await client.get(f"/api/leads/{lead_id}/events"))["items"]
        if not items:
            raise NotSeen("no events")
        board.seen("timeline", f"{len(items)} events: {', '.join(dict.fromkeys(item['type'] for item in items))}")


async def _answered(client: Client, socket: aiohttp.ClientWebSocketResponse, outside: Outside, board: Board) -> None:
    """Where the workflow is a real one, nothing fails on purpose."""
    agent = await client.post("/api/agents", {"name": "Ada's assistant"})
    board.seen("agent", agent["name"])
    with board.step("message"):
        question = {"agentId": agent["id"], "content": "Is it raining?"}
        await socket.send_json({"type": "message", "data": question})
        queued = await _frame(socket, "processing")
        board.seen("message", queued["messageId"])
    with board.step("outage"):
        said = await outside.taken("workflow", PATIENCE) if outside.is_workflow else "not staged: it is a real one"
        board.seen("outage", said)
    with board.step("answer"):
        board.seen("answer", (await _frame(socket, "message"))["message"])
    with board.step("history"):
        path = f"/api/conversations/{queued['conversationId']}/messages"
        items = await _eventually(lambda: _items(client, path), enough=2)
        [ended] = await _eventually(lambda: _completed(client, queued["messageId"]))
        board.seen("history", f"{len(items)} messages, {ended['attempts']} attempts")


async def _frame(socket: aiohttp.ClientWebSocketResponse, kind: str) -> Json:
    """The data of the next frame of this type. Raises NotSeen with what an error says that comes first."""
    while True:
        frame = await socket.receive_json(timeout=PATIENCE)
        if frame["type"] == kind:
            found: Json = frame["data"]
            return found
        if frame["type"] == "error":
            raise NotSeen(frame["data"]["message"])


async def _items(client: Client, path: str) -> list[Json]:
    items: list[Json] = (await client.get(path))["items"]
    return items


async def _completed(client: Client, message_id: str) -> list[Json]:
    status = (await client.get(f"/api/messages/{message_id}/status"))["data"]
    return [status] if status["state"] == "completed" else []


async def _enrichment(client: Client, lead_id: str) -> list[Json]:
    enrichment = (await client.get(f"/api/leads/{lead_id}"))["enrichment"]
    return [] if enrichment is None else [enrichment]


async def _tasks(client: Client, lead_id: str) -> list[Json]:
    items: list[Json] = (await client.get(f"/api/leads/{lead_id}/tasks"))["items"]
    return items


async def _score(client: Client, lead_id: str) -> list[int]:
    score = (await client.get(f"/api/leads/{lead_id}"))["score"]
    return [] if score is None else [score]


async def _handled_by(client: Client, lead_id: str, group: str) -> list[str]:
    items = (await client.get(f"/api/leads/{lead_id}/events"))["items"]
    return [item["type"] for item in items if group in (one["group"] for one in item["handledBy"])]


async def _eventually(look: Callable[[], Awaitable[list[Any]]], enough: int = 1) -> list[Any]:
    """Ask again until there are `enough`, as an integrator would. Raises TimeoutError after PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await look()) < enough:
            await asyncio.sleep(0.02)
    return found


async def _until(queue: "asyncio.Queue[tuple[str, int]]", wanted: tuple[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while await queue.get() != wanted:
            continue


async def _answer(response: aiohttp.ClientResponse) -> Json:
    answer: Json = await response.json(content_type=None)
    if response.status >= 400:
        raise NotSeen(f"{response.method} {response.url.path}: {response.status} {answer.get('detail', '')}")
    return answer
