"""HTTP load from a process of its own: `python -m benchmarks.programs.load <job.json`; how it went is a line of JSON.

closed  a number of connections, each of which sends as soon as it is answered: how much the server can take
open    request i is due at start + i/rate and is sent then, whatever became of those before; its latency counts from
        the time at which it was due, so that a server which stalls is charged for all that had to wait (no coordinated
        omission). The generator's own lateness, up to a millisecond, counts as well

Requests are bytes that are built beforehand, and answers are looked at no further than status and length: the generator
must cost less than the server that it measures.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

from eventbus.process.loop import run

NUMBER = "0000000000"  # stands for a request's number wherever a body or header has it
GIVE_UP = 30.0  # seconds that answers may take behind the last request


@dataclass(frozen=True)
class Job:
    """`rate` in requests a second, for the open loop. What is sent in the first `warm_up` seconds does not count."""

    host: str
    port: int
    path: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)
    expected: int = 200
    mode: Literal["closed", "open"] = "closed"
    connections: int = 64
    seconds: float = 5.0
    warm_up: float = 1.0
    rate: float = 0.0
    first: int = 1  # number of the first request: a number that is sent twice may be taken for a duplicate

    def parts(self) -> Sequence[bytes]:
        """The bytes of a request, split where its number stands."""
        headers = {"Host": f"{self.host}:{self.port}", "Content-Length": str(len(self.body.encode())), **self.headers}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", self.body]
        return "\r\n".join(lines).encode().split(NUMBER.encode())


@dataclass(frozen=True)
class Answered:
    """The requests that counted; latencies in milliseconds. `failures`: other statuses, broken connections, no answer
    in time. `sent`: all requests, those of the warm-up too."""

    requests: int
    failures: int
    seconds: float
    sent: int
    p50: float
    p95: float
    p99: float
    max: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def load(job: Job) -> Answered:
    """Run the generator, and wait for it. Blocks. Raises CalledProcessError if it fails: stderr says why."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.programs.load"],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=job.warm_up + job.seconds + 2 * GIVE_UP,
        check=True,
    )
    return Answered(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._received = b""
        self._due: float | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        if len(received) < end + 4 + _length(received[:end]):
            return
        due, self._due, self._received = self._due, None, b""
        assert due is not None, "an answer to nothing"
        self._load.answered(self, due, ok=received[9:12] == self._load.expected)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._due is not None:
            self._load.broken(self._due)


def _length(head: bytes) -> int:
    """The length of the body that follows. Raises ValueError for a head that does not say it."""
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"an answer without Content-Length: {head[:200]!r}")
    return int(rest.partition(b"\r\n")[0])


class _Load:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.expected = str(job.expected).encode()
        self._number = job.first
        self._parts = job.parts()
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()  # due times that found no idle connection
        self._latencies: list[float] = []
        self._failures = self._running = 0
        self._counts_from = self._ends = self._last = 0.0
        self._settled = asyncio.Event()

    async def run(self) -> Answered:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: _Connection(self), self.job.host, self.job.port)
            for _ in range(self.job.connections)
        ]
        self._idle.extend(protocol for _, protocol in made)
        began = time.perf_counter()
        self._counts_from = began + self.job.warm_up
        self._ends = self._counts_from + self.job.seconds
        if self.job.mode == "open":
            await self._keep_pace(began)
        else:
            while self._idle:
                self._send(self._idle.popleft(), time.perf_counter())
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.perf_counter()) + GIVE_UP):
                await self._settled.wait()
        except TimeoutError:
            self._failures += self._running + len(self._waiting)
        for transport, _ in made:
            transport.close()
        return self._answer()

    async def _keep_pace(self, began: float) -> None:
        number, total = 0, round((self._ends - began) * self.job.rate)
        while number < total:
            due = began + number / self.job.rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            while number < total and (due := began + number / self.job.rate) <= time.perf_counter():
                number += 1
                if self._idle:
                    self._send(self._idle.popleft(), due)
                else:
                    self._waiting.append(due)
        self._check_settled()

    def _send(self, connection: _Connection, due: float) -> None:
        self._running += 1
        request = (b"%010d" % self._number).join(self._parts)
        self._number += 1
        connection.send(request, due)

    def answered(self, connection: _Connection, due: float, *, ok: bool) -> None:
        now = time.perf_counter()
        self._running -= 1
        self._count(due, now, ok)
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        elif self.job.mode == "closed" and now < self._ends:
            self._send(connection, now)
        else:
            self._idle.append(connection)
            self._check_settled()

    def broken(self, due: float) -> None:
        self._running -= 1
        self._count(due, time.perf_counter(), ok=False)
        self._check_settled()

    def _count(self, due: float, now: float, ok: bool) -> None:
        if not ok:
            self._failures += 1  # in the warm-up as well: nothing may fail
        elif self._counts_from <= due and (self.job.mode == "open" or now <= self._ends):
            self._latencies.append((now - due) * 1000)
            self._last = now

    def _check_settled(self) -> None:
        if not self._running and not self._waiting and time.perf_counter() >= self._ends - 1 / (self.job.rate or 1000):
            self._settled.set()

    def _answer(self) -> Answered:
        ordered = sorted(self._latencies) or [float("nan")]
        p50, p95, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.50, 0.95, 0.99))
        sent = self._number - self.job.first
        took = max(self._last, self._ends) - self._counts_from if self.job.mode == "open" else self.job.seconds
        return Answered(len(self._latencies), self._failures, took, sent, p50, p95, p99, ordered[-1])


if __name__ == "__main__":
    print(json.dumps(asdict(run(_Load(Job(**json.load(sys.stdin))).run()))))
