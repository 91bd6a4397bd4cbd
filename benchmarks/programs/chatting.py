"""Many clients of /ws/chat in one process: each says something to its agent, and waits for what comes back."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import aiohttp
import orjson

OPENING = 100  # handshakes at a time
STEP = 7_919  # a prime: the next message is sent on a socket somewhere else
PATIENCE = 20.0  # seconds for the last response


class Client(NamedTuple):
    """Each client is a user of its own: all sockets of one user are told everything."""

    token: str
    agent: str


@dataclass
class Said:
    """One message: when it was to be sent, and what came back when, in seconds of one clock."""

    due: float
    queued: float = 0.0
    answered: float = 0.0
    answers: int = 0


@dataclass
class Tally:
    """The counts of all clients. `crossed`: frames about another client's message."""

    said: dict[str, Said] = field(default_factory=dict)
    crossed: int = 0
    errors: list[str] = field(default_factory=list)
    closed: int = 0

    @property
    def lost(self) -> int:
        return sum(one.answers == 0 for one in self.said.values())

    @property
    def repeated(self) -> int:
        return sum(one.answers > 1 for one in self.said.values())

    def waits(self) -> list[float]:
        """From the moment that a message was due to its response, in seconds, shortest first."""
        return sorted(one.answered - one.due for one in self.said.values() if one.answers)

    def queues(self) -> list[float]:
        """From the moment that a message was due to the gateway's receipt, in seconds, shortest first."""
        return sorted(one.queued - one.due for one in self.said.values() if one.queued)


class Crowd:
    """`async with Crowd(url, clients) as crowd`: all of them connected."""

    def __init__(self, url: str, clients: Sequence[Client]) -> None:
        self._url, self._clients = url, clients
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []
        self._reading: list[asyncio.Task[None]] = []
        self.tally = Tally()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        gate = asyncio.Semaphore(OPENING)
        self._sockets = await asyncio.gather(*(self._open(client, gate) for client in self._clients))
        self._reading = [asyncio.create_task(self._read(*one)) for one in enumerate(self._sockets)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await asyncio.gather(*(socket.close() for socket in self._sockets), return_exceptions=True)
        await self._session.close()

    async def _open(self, client: Client, gate: asyncio.Semaphore) -> aiohttp.ClientWebSocketResponse:
        async with gate:
            socket = await self._session.ws_connect(f"{self._url}/ws/chat", params={"token": client.token})
            greeting = await socket.receive_json()
            assert greeting["type"] == "connected", greeting
            return socket

    async def talk(self, messages: int, seconds: float, first: int = 0) -> Tally:
        """An open loop: message i is due at i * seconds / messages, whatever has become of those before. Its id says
        which socket it belongs to. `first`: the number of the first message, so that no id is used twice."""
        began = time.perf_counter()
        for number in range(messages):
            due = began + number * seconds / messages
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await self._say(first + number, due)
        give_up = time.perf_counter() + PATIENCE
        while self.tally.lost and not self.tally.errors and time.perf_counter() < give_up:
            await asyncio.sleep(0.05)
        return self.tally

    async def _say(self, number: int, due: float) -> None:
        which = number * STEP % len(self._sockets)
        message_id = f"{which}-{number}"
        self.tally.said[message_id] = Said(due)
        content = {"agentId": self._clients[which].agent, "content": f"to {message_id}", "id": message_id}
        await self._sockets[which].send_str(orjson.dumps({"type": "message", "data": content}).decode())

    async def _read(self, which: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self._hear(which, orjson.loads(message.data))
        self.tally.closed += 1

    def _hear(self, which: int, frame: dict[str, Any]) -> None:
        now, said = time.perf_counter(), frame.get("data", {})
        if frame["type"] == "error":
            self.tally.errors.append(said["message"])
        message_id = said.get("messageId")
        if message_id is None:
            return
        if not message_id.startswith(f"{which}-") or said.get("message", f"to {message_id}") != f"to {message_id}":
            self.tally.crossed += 1
            return
        mine = self.tally.said[message_id]
        if frame["type"] == "processing":
            mine.queued = now
        elif frame["type"] == "message":
            mine.answered = mine.answered or now
            mine.answers += 1
