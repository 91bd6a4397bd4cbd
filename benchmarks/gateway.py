"""`python -m benchmarks.gateway`: what the gateway takes, beside a bare aiohttp handler, and how fast it takes leads.

events    POST /api/events -> 202: token, validation, stored in Redis. In turn with the bare handler, on one machine, by
          the same generator; the processor time that each server's process takes for a request is measured as well
messages  POST /api/messages -> 202: token, validation, whose agent it is, stored in Redis. In turn with the bare
          handler, too; then at a steady rate
leads     POST /api/leads -> 201: row and outbox committed, at a steady rate, whatever the answers take

The gateway is a process as `eventbus gateway` starts it, on embedded servers with the settings of the demo.
"""

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.request import Request, urlopen

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.programs import bare
from benchmarks.programs.load import NUMBER, Answered, Job, load
from benchmarks.running.processes import cpu_seconds
from benchmarks.running.servers import machine, server
from eventbus.embedded import EmbeddedPostgres
from gateway.callers.auth import make_token

HOST, ORGANIZATION = "127.0.0.1", "org-1"
CONNECTIONS = 64
LEAD_RATE, MESSAGE_RATE, OPEN_CONNECTIONS = 500.0, 1_000.0, 200
START_TIMEOUT = 60.0  # seconds

EVENT = {
    "specversion": "1.0",
    "id": f"lead-{NUMBER}",
    "source": "https://example.com/benchmark",
    "type": "lead.enrich",
    "data": {"leadId": f"lead-{NUMBER}", "fields": ["x" * 36]},
}
LEAD = {"name": f"Lea {NUMBER}", "email": f"lea-{NUMBER}@example.com", "company": "Example", "source": "BENCHMARK"}
MESSAGE = {"message": f"What is the weather in {NUMBER}?", "channel": "web", "priority": 5}
JSON, CLOUD_EVENT = "application/json", "application/cloudevents+json"


@dataclass(frozen=True)
class Round:
    """One contender in one round. `cpu`: seconds of its process for one request."""

    contender: str
    answered: Answered
    cpu: float


@dataclass(frozen=True)
class Turns:
    """Rounds in which the gateway and the bare handler took turns. `ratio`: of the medians, gateway to bare."""

    path: str
    rounds: list[Round]

    @property
    def ratio(self) -> float:
        return self.median("gateway") / self.median("bare")

    def median(self, contender: str) -> float:
        return statistics.median(self.rates(contender))

    def rates(self, contender: str) -> list[float]:
        return [r.answered.per_second for r in self.rounds if r.contender == contender]

    def cpu(self, contender: str) -> float:
        """The least of the rounds: other work on the machine only ever adds to it."""
        return min(r.cpu for r in self.rounds if r.contender == contender)


@dataclass(frozen=True)
class Figures:
    """`steady`: messages at MESSAGE_RATE."""

    events: Turns
    messages: Turns
    steady: Round | None
    leads: Round | None

    @property
    def failures(self) -> int:
        rounds = [*self.events.rounds, *self.messages.rounds, self.steady, self.leads]
        return sum(r.answered.failures for r in rounds if r is not None)


Say = Callable[[str], None]


def measure(
    rounds: int = 3, seconds: float = 5.0, lead_seconds: float = 20.0, say: Say = lambda _text: None
) -> Figures:
    """Everything, on servers that are started for it. Blocks."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eventbus-bench-")))
        gateway = stack.enter_context(gateway_process(folder))
        limit = stack.enter_context(bare_process())
        message = Posted(bare.MESSAGES, json.dumps({**MESSAGE, "agentId": make_agent(gateway)}), 202)
        event = Posted(bare.EVENTS, json.dumps(EVENT), 202, CLOUD_EVENT)
        lead = Posted("/api/leads", json.dumps(LEAD), 201)
        return Figures(
            in_turn(event, (limit, gateway), rounds, seconds, say),
            in_turn(message, (limit, gateway), rounds, seconds, say),
            steadily(message, gateway, MESSAGE_RATE, lead_seconds / 2, say) if lead_seconds else None,
            steadily(lead, gateway, LEAD_RATE, lead_seconds, say) if lead_seconds else None,
        )


class Posted(NamedTuple):
    """What is sent, and the status that answers it."""

    path: str
    body: str
    expected: int
    content_type: str = JSON


def in_turn(posted: Posted, targets: "Sequence[Target]", rounds: int, seconds: float, say: Say) -> Turns:
    """Rounds in which the targets take turns, so that a slow moment of the machine strikes all of them."""
    told, first = Turns(posted.path, []), 1
    for number in range(1, rounds + 1):
        for target in targets:
            say(f"{number}/{rounds} POST {posted.path}, {target.name}")
            told.rounds.append(target.run(posted, connections=CONNECTIONS, seconds=seconds, first=first))
            first += told.rounds[-1].answered.sent
    return told


def steadily(posted: Posted, gateway: "Target", rate: float, seconds: float, say: Say) -> Round:
    say(f"POST {posted.path}, {rate:g}/s")
    return gateway.run(posted, mode="open", connections=OPEN_CONNECTIONS, seconds=seconds, rate=rate, warm_up=3.0)


def make_agent(gateway: "Target") -> str:
    """Create the agent that the messages are for; its id."""
    headers = {**gateway.headers, "Content-Type": JSON}
    request = Request(f"http://{HOST}:{gateway.port}/api/agents", b'{"name": "Benchmark"}', headers)
    with urlopen(request, timeout=10) as answer:
        agent_id: str = json.load(answer)["id"]
        return agent_id


@dataclass(frozen=True)
class Target:
    """A server's process."""

    name: str
    pid: int
    port: int
    headers: dict[str, str]

    def run(self, posted: Posted, **how: Any) -> Round:
        """`how`: further fields of Job."""
        headers = {**self.headers, "Content-Type": posted.content_type}
        job = Job(HOST, self.port, posted.path, posted.body, headers=headers, expected=posted.expected, **how)
        before = cpu_seconds(self.pid)
        answered = load(job)
        return Round(self.name, answered, (cpu_seconds(self.pid) - before) / answered.sent)


@contextmanager
def bare_process() -> Iterator[Target]:
    """The bare handler, which is sent the same bytes as the gateway, token included."""
    with module_process("benchmarks.programs.bare", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        headers = {"Authorization": f"Bearer {_token('x' * 32)}"}
        yield Target("bare", process.pid, port, headers)


@contextmanager
def gateway_process(folder: Path) -> Iterator[Target]:
    """The gateway with its servers, migrated; its log goes into a file."""
    secret, log = secrets.token_hex(32), folder / "gateway.log"
    with server() as redis_url, EmbeddedPostgres(folder / "postgres") as postgres:
        environment = {
            "EVENTBUS_REDIS_URL": redis_url,
            "EVENTBUS_DATABASE_URL": postgres.url,
            "EVENTBUS_JWT_SECRET": secret,
            "EVENTBUS_SPOOL_PATH": str(folder / "contingency-log.jsonl"),
            "EVENTBUS_LOG_FORMAT": "json",
            "EVENTBUS_PORT": "0",
            "EVENTBUS_DRAIN_SECONDS": "0",
            "EVENTBUS_RATE_LIMIT": "off",  # one user sends all requests
        }
        migrate = [sys.executable, "-m", "eventbus.cli", "migrate"]
        subprocess.run(migrate, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
        with log.open("wb") as file, module_process("gateway", stderr=file, environment=environment) as process:
            headers = {"Authorization": f"Bearer {_token(secret)}"}
            yield Target("gateway", process.pid, port_of(process, log), headers)


def _token(secret: str) -> str:
    return make_token(secret, user="bench", organization=ORGANIZATION, roles=frozenset({"system"}))


def port_of(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """The port on which the gateway listens, by its own log."""
    give_up = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < give_up:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    text = log.read_text(encoding="utf-8")
    raise RuntimeError(f"the gateway did not come up:\n{text}")


@contextmanager
def module_process(
    module: str, *, environment: dict[str, str] | None = None, **pipes: object
) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", module]
    process = subprocess.Popen(command, env=os.environ | (environment or {}), **pipes)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each contender in a round.")] = 5.0,
    lead_seconds: Annotated[
        float, typer.Option(min=0, help="Of leads at a steady rate, and half of that of messages; 0 for none.")
    ] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure, and show. Exit 1 if a request failed."""
    figures = measure(rounds, seconds, lead_seconds, Console(stderr=True).print)
    if as_json:
        typer.echo(json.dumps({"machine": machine(), "ratios": _ratios(figures), **asdict(figures)}, indent=2))
    else:
        _show(figures)
    if figures.failures:
        raise typer.Exit(1)


def _ratios(figures: Figures) -> dict[str, float]:
    return {turns.path: round(turns.ratio, 3) for turns in (figures.events, figures.messages)}


def _show(figures: Figures) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110)
    for turns in (figures.events, figures.messages):
        console.print(_table(turns))
    steady = ((bare.MESSAGES, MESSAGE_RATE, figures.steady), ("/api/leads", LEAD_RATE, figures.leads))
    for path, rate, found in steady:
        if found is not None:
            answered = found.answered
            console.print(
                f"POST {path} at {rate:g}/s, {answered.requests:,} requests: "
                f"p50 {answered.p50:.1f} ms, p95 {answered.p95:.1f}, p99 {answered.p99:.1f}, max {answered.max:.1f}; "
                f"CPU of a request {found.cpu * 1e6:.0f} µs"
            )
    console.print(f"failed requests: {figures.failures}")


def _table(turns: Turns) -> Table:
    table = Table(title=f"POST {turns.path}, {CONNECTIONS} connections, median of the rounds, {machine()}")
    for column in ("", "per second", "of bare", "slowest - fastest", "CPU of a request, µs", "p99, ms"):
        table.add_column(column, justify="right" if column else "left")
    for name in ("bare", "gateway"):
        rates = turns.rates(name)
        worst = max(r.answered.p99 for r in turns.rounds if r.contender == name)
        share = f"{turns.median(name) / turns.median('bare'):.2f}x"
        spread = f"{min(rates):,.0f} - {max(rates):,.0f}"
        table.add_row(name, f"{turns.median(name):,.0f}", share, spread, f"{turns.cpu(name) * 1e6:.0f}", f"{worst:.1f}")
    return table


if __name__ == "__main__":
    typer.run(main)
