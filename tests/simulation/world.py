"""One schedule: everything is set up as its plan says, runs until it is drained or ought to be, and is judged."""

import gc
import random
import sys
from dataclasses import dataclass
from functools import partial
from unittest import mock

import asyncpg
import orjson
import structlog

from eventbus.operating import control
from eventbus.postgres import relay
from eventbus.postgres.relay_decisions import HAND_OVER
from eventbus.process.safe_logging import _Guarded
from eventbus.redis import scripts
from eventbus.redis.keys import group_keys, stream_keys
from tests.simulation.application import GROUP, STREAM, WorkerProcess, publish_all, write_outbox
from tests.simulation.checks import Left, judge
from tests.simulation.fate import Fate, Scene
from tests.simulation.history import History, Publish, Stored
from tests.simulation.loop import Livelock, Loop, Process, current
from tests.simulation.network import Network
from tests.simulation.plan import HORIZON, Plan
from tests.simulation.postgres import Database
from tests.simulation.randomness import deterministic
from tests.simulation.server.keyspace import SortedSet
from tests.simulation.server.server import Client, Server
from tests.simulation.server.streams import Stream

PATIENCE = 45.0  # seconds from the healing on until all must be drained, beside what handlers take
LOOK = 0.5  # seconds between looks whether it is
STOP_PATIENCE = 25.0  # seconds in which workers that are told to stop must end
LONGEST_STEP = 100.0  # seconds, of the server's clock
NAMESPACE = "eb"
BATCH = 2  # rows that a relay moves at a time: so that there is a next batch
CONTROL_INTERVAL = 5.0  # seconds between looks at pauses, which nobody here makes


@dataclass
class Result:
    """`wrong`: what was violated, empty if nothing was."""

    plan: Plan
    wrong: list[str]
    history: History
    seconds: float  # that the simulation lasted, by its own clock


class World:
    def __init__(self, plan: Plan, *, tracing: bool) -> None:
        self.plan = plan
        seed = plan.seed
        self.loop = Loop(random.Random(f"{seed}/turns"))
        self.history = History(self.loop, tracing)
        labels = {each.digest: name.lower() for name, each in vars(scripts).items() if isinstance(each, scripts.Script)}
        self.server = Server(self.loop, random.Random(f"{seed}/server"), labels)
        self.network = Network(self.loop, self.server, random.Random(f"{seed}/network"))
        self.database = Database(self.loop, random.Random(f"{seed}/database"))
        self._outbox = any(work.through == "outbox" for work in plan.work)
        self._workers: dict[Process, WorkerProcess] = {}
        self._publishers: list[Process] = []
        self.publishes = {work.token: Publish(work.token, work.at, work.at) for work in plan.work}
        self.history.publishes = list(self.publishes.values())
        scene = Scene(self.loop, self.server, self.network, self.database, self.history)
        self.fate = Fate(plan, scene, self)
        self.server.db.added = self._added
        self.drained = False
        self.stopped = True

    # Staff ------------------------------------------------------------------------------------------------------------

    def workers(self) -> list[Process]:
        return [process for process in self._at_work() if not self._workers[process].stopping]

    def _at_work(self) -> list[Process]:
        return [process for process, worker in self._workers.items() if process.alive and not worker.ended]

    def everyone(self) -> list[Process]:
        return [*self._at_work(), *(process for process in self._publishers if process.alive)]

    def hire(self) -> None:
        process = self.loop.process(f"worker{len(self._workers) + 1}")
        worker = self._workers[process] = WorkerProcess(
            self.history, self.plan, self.database if self._outbox else None
        )
        process.spawn(worker.main())

    def dismiss(self, process: Process, *, cancel: bool = False) -> None:
        worker = self._workers.get(process)
        if worker is not None:
            worker.stopping = True
            process.spawn(worker.cancel() if cancel else worker.stop())

    # The course of events ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        for number in range(self.plan.workers):
            self.loop.at(0.01 * number, self.hire)
        for number in range(self.plan.publishers):
            process = self.loop.process(f"publisher{number + 1}")
            self._publishers.append(process)
            work = [each for each in self.plan.work if each.publisher == number and each.through == "direct"]
            process.spawn(publish_all(self.history, process, work, self.publishes))
        for each in self.plan.work:
            if each.through == "outbox":
                self.loop.at(
                    each.at, partial(write_outbox, self.history, self.database, each, self.publishes[each.token])
                )
        self.loop.at(HORIZON, self._calm)

    def _calm(self) -> None:
        self.fate.heal()
        self._look()

    def _look(self) -> None:
        healed = self.history.healed_at or 0.0
        self.drained = self._is_drained()
        patience = PATIENCE + self.plan.longest(len(self.history.deaths))
        if "set clock" in self.history.faults:
            patience += LONGEST_STEP
        if self.drained or self.loop.now > healed + patience:
            for process in self.workers():
                self.dismiss(process)
            self._await_end(self.loop.now + STOP_PATIENCE)
        else:
            self.loop.at(self.loop.now + LOOK, self._look)

    def _await_end(self, until: float) -> None:
        self.stopped = not self._at_work()
        if self.stopped or self.loop.now > until:
            self.loop.finish()
        else:
            self.loop.at(self.loop.now + LOOK, partial(self._await_end, until))

    def _is_drained(self) -> bool:
        left = self.left()
        publishing = any(
            publish.ended is None and (work.through == "outbox" or self._publishers[work.publisher].alive)
            for publish, work in zip(self.history.publishes, self.plan.work, strict=True)
        )
        publishing = publishing or self.network.late_until > self.loop.now
        return not publishing and not (left.pending or left.undelivered or left.due or left.waiting)

    def _added(self, key: bytes, entry: bytes, fields: list[bytes]) -> None:
        lane = key.decode()
        if lane in stream_keys(NAMESPACE, STREAM).lanes:
            token = orjson.loads(fields[7])["token"]
            client = self.server.executing
            by, late = ("", False) if client is None else (client.owner, self._is_late(client))
            self.history.stored.append(Stored(fields[1].decode(), self.loop.now, entry.decode(), by, late))
            publish = self.publishes[token]
            publish.event_id = publish.event_id or fields[1].decode()
            self.history.note("stored", token, lane, entry.decode())

    def _is_late(self, client: Client) -> bool:
        return self.network.of_client(client) is None or self.loop.now - client.sent > HAND_OVER

    def left(self) -> Left:
        """What is in the server, and in the outbox."""
        db, names = self.server.db, stream_keys(NAMESPACE, STREAM)
        group_names = group_keys(NAMESPACE, STREAM, GROUP)
        pending = undelivered = taken = 0
        for lane in names.lanes:
            stream = db.find(lane.encode(), Stream)
            group = stream.groups.get(GROUP.encode()) if stream is not None else None
            taken += stream.added if stream is not None else 0
            if stream is not None and group is not None:
                pending += len(group.pending)
                undelivered += len(stream.behind(group.last, len(stream.ids)))
            elif stream is not None:
                undelivered += len(stream.ids)
        dead = db.find(names.dead.encode(), Stream)
        letters = [dict(zip(f[::2], f[1::2], strict=True)) for f in dead.fields.values()] if dead is not None else []
        return Left(
            pending=pending,
            undelivered=undelivered,
            due=len(db.find(names.due.encode(), SortedSet) or ()),
            waiting=len(self.database.waiting()),
            scheduled=len(db.find(names.scheduled.encode(), dict) or ()),
            retry=len(db.find(group_names.retry.encode(), SortedSet) or ()),
            failures=len(db.find(group_names.failures.encode(), dict) or ()),
            crashes=len(db.find(group_names.crashes.encode(), dict) or ()),
            dead=[letter[b"id"].decode() for letter in letters],
            uncounted=taken - self._counted(names.counts) - pending - undelivered,
            unscheduled=self._kept_back(names.counts) - len(db.find(names.due.encode(), SortedSet) or ()),
        )

    def _counted(self, key: str) -> int:
        """What the group has settled, as ack.lua and bury.lua count it."""
        counts = self.server.db.find(key.encode(), dict) or {}
        return sum(int(count) for name, count in counts.items() if name.startswith((b"acked:", b"buried:", b"base:")))

    def _kept_back(self, key: str) -> int:
        """What went into the schedule, less what came out of it, as keeping.lua and promote.lua count it."""
        counts = self.server.db.find(key.encode(), dict) or {}
        gone = sum(int(counts.get(name, b"0")) for name in (b"promoted", b"withdrawn", b"aside"))
        return int(counts.get(b"scheduled", b"0")) - gone

    def run(self) -> list[str]:
        wrong: list[str] = []
        self._begin()
        try:
            self.loop.simulate()
        except Livelock as error:
            wrong.append(f"something goes on without end: {error}")
        wrong += [f"nobody caught: {failure}" for failure in self.loop.failures]
        return wrong + judge(self.plan, self.history, self.left(), drained=self.drained, stopped=self.stopped)


def run(plan: Plan) -> Result:
    """One schedule."""
    world = World(plan, tracing=False)
    processors = [_Noting(world.history)]
    before = structlog.get_config()
    _forget_loggers()
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(0),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    try:
        with (
            deterministic(world.loop, str(plan.seed), world.fate.crash_point),
            mock.patch.object(asyncpg, "connect", world.database.connect),
            mock.patch.object(relay, "BATCH", BATCH),
            mock.patch.object(control, "INTERVAL", CONTROL_INTERVAL),
        ):
            try:
                wrong = world.run()
            finally:
                world.history.over = True
                world.loop.end()
    finally:
        structlog.configure(**before)
    result = Result(plan, wrong, world.history, world.loop.now)
    del world
    return result


def _forget_loggers() -> None:
    """Where a test has configured this process' logs, loggers that have been used keep to that for ever."""
    for title, module in list(sys.modules.items()):
        logger = vars(module).get("log") if title.startswith("eventbus.") else None
        if isinstance(logger, _Guarded):
            vars(logger._logger).pop("bind", None)


class _Noting:
    """Log lines go into the history."""

    def __init__(self, history: History) -> None:
        self._history = history

    def __call__(self, _logger: object, method: str, line: structlog.typing.EventDict) -> str:
        event, error = line.pop("event", ""), line.pop("exc_info", None)
        process = current()
        if process is not None and str(event).startswith("stopped with unsettled"):
            self._history.unsettled[process] = self._history.loop.now
        self._history.note("LOG", method, event, dict(sorted(line.items())), repr(error) if error else "")
        return ""


def forget() -> None:
    """Free what simulations have left, now that none runs."""
    gc.collect()
