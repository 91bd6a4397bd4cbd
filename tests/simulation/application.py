"""What runs in the simulated processes: the real bus, worker and relay, with events whose handlers keep a history."""

import asyncio
from contextlib import suppress

import structlog

from eventbus import Backoff, Context, Event, EventBus, Group, RetryPolicy, Worker
from eventbus.contract.codec import encode, envelop
from eventbus.errors import EventBusError
from eventbus.postgres.relay import Relay
from eventbus.redis import RedisTransport
from tests.simulation.history import History, Publish, Run
from tests.simulation.loop import Process, current
from tests.simulation.network import owner
from tests.simulation.plan import ATTEMPTS, BACKOFF, LEASE, Plan, Work
from tests.simulation.postgres import Database

URL = "redis://simulated:6379"
GRACE = 5.0  # seconds that a worker that is told to stop has for its handlers
GROUP = "sims"
STREAM = "sim"

log = structlog.get_logger("simulation")


class Sim(Event, type="sim.asked"):
    """`seconds`: how long its handler takes; `fails`: how many attempts fail."""

    token: int
    seconds: float
    fails: int


class SimulatedTransport(RedisTransport):
    """The real one, but for the thread that renews in the place of a loop that is blocked: here none ever is."""

    def keeper(self) -> None:  # type: ignore[override]
        return None


def open_bus() -> EventBus:
    bus = EventBus(URL)
    bus.transport = SimulatedTransport(URL)
    return bus


def group(history: History, plan: Plan) -> Group:
    sims = Group(
        GROUP,
        retry=RetryPolicy(attempts=ATTEMPTS, backoff=Backoff.fixed(BACKOFF)),
        concurrency=plan.concurrency,
        lease=LEASE,
        timeout=None,
    )

    @sims.on(Sim)
    async def handle(event: Sim, ctx: Context) -> None:
        process = owner()
        run = Run(event.token, ctx.event_id, ctx.attempt, process, history.loop.now)
        history.runs.append(run)
        history.note("begin", event.token, f"attempt {ctx.attempt}")
        try:
            if event.seconds:
                await asyncio.sleep(event.seconds)
            if ctx.attempt <= event.fails:
                raise ValueError("on purpose")  # noqa: TRY301
        except BaseException as error:
            _conclude(history, run, type(error).__name__)
            raise
        _conclude(history, run, "done")

    return sims


def _conclude(history: History, run: Run, outcome: str) -> None:
    if run.process.alive and current() is run.process:
        run.ended, run.outcome = history.loop.now, outcome
        history.note("end", run.token, outcome)


class WorkerProcess:
    """`main` for ever, or until `stop`."""

    def __init__(self, history: History, plan: Plan, database: Database | None) -> None:
        self._history = history
        self._plan = plan
        self._database = database
        self._worker: Worker | None = None
        self.stopping = False
        self.ended = False
        self._task: asyncio.Task[None] | None = None

    async def main(self) -> None:
        self._task = asyncio.current_task()
        try:
            await self._stay()
        finally:
            self.ended = True
            self._history.note("worker ended")

    async def _stay(self) -> None:
        while not self.stopping:
            try:
                async with open_bus() as bus:
                    await self._work(bus)
            except EventBusError as error:  # it could not connect: its supervisor begins it again
                self._history.note("worker cannot begin", error)
                await asyncio.sleep(1.0)

    async def _work(self, bus: EventBus) -> None:
        self._worker = Worker(bus, [group(self._history, self._plan)], grace=GRACE, relay=False)
        if self.stopping:
            return
        relaying = asyncio.create_task(Relay("", bus.transport).run()) if self._database is not None else None
        try:
            await self._worker.run(signals=False)
        finally:
            if relaying is not None:
                relaying.cancel()
                with suppress(asyncio.CancelledError):
                    await relaying

    async def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        self.stopping = True
        if self._worker is not None:
            await self._worker.stop()


async def publish_all(history: History, process: Process, work: list[Work], publishes: dict[int, Publish]) -> None:
    """A publisher's life: each event at its time, side by side."""
    while True:
        try:
            async with open_bus() as bus, asyncio.TaskGroup() as tasks:
                for each in work:
                    if publishes[each.token].process is None:
                        tasks.create_task(_publish(history, bus, process, each, publishes[each.token]))
            return
        except EventBusError as error:
            history.note("publisher cannot begin", error)
            await asyncio.sleep(1.0)


async def _publish(history: History, bus: EventBus, process: Process, work: Work, publish: Publish) -> None:
    await asyncio.sleep(max(0.0, work.at - history.loop.now))
    event = Sim(token=work.token, seconds=work.seconds, fails=work.fails)
    publish.process, publish.begun, publish.due = process, history.loop.now, history.loop.now + work.delay
    history.note("publish", work.token)
    try:
        receipt = await bus.publish(event, delay=work.delay or None, priority=work.priority)
    except EventBusError as error:
        if process.alive:
            publish.ended, publish.outcome = history.loop.now, type(error).__name__
            history.note("published", work.token, f"{type(error).__name__}: {error}")
        return
    if process.alive:
        publish.ended, publish.outcome, publish.event_id = history.loop.now, str(receipt.status), receipt.id
        history.note("published", work.token, receipt.status)


def write_outbox(history: History, database: Database, work: Work, publish: Publish) -> None:
    """A transaction that writes the event and commits in time."""
    envelope = envelop(Sim(token=work.token, seconds=work.seconds, fails=work.fails))
    _, _, meta, data = (part if isinstance(part, str) else part.decode() for part in encode(envelope)[1::2])
    publish.begun = publish.due = history.loop.now
    publish.event_id = envelope.id

    def committed() -> None:
        publish.ended, publish.outcome = history.loop.now, "committed"
        history.note("committed", work.token)

    database.write(envelope, meta, data, work.commits, committed)
