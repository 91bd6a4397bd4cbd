"""The faults of a plan, as they strike."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Protocol

from tests.simulation.history import History
from tests.simulation.loop import Killed, Loop, Process, current
from tests.simulation.network import Connection, Network
from tests.simulation.plan import Fault, Plan
from tests.simulation.postgres import Database, Session
from tests.simulation.server.server import Client, Server

CUT = 0.5  # seconds that a broken connection counts for against the leases of its process


class Staff(Protocol):
    """Who is at work, for fate to choose from."""

    def workers(self) -> list[Process]:
        """Those that live."""

    def everyone(self) -> list[Process]:
        """Publishers too."""

    def hire(self) -> None:
        """Another worker begins."""

    def dismiss(self, process: Process, *, cancel: bool = False) -> None:
        """A worker is told to stop, or cancelled."""


class Scene(NamedTuple):
    """What fate plays with."""

    loop: Loop
    server: Server
    network: Network
    database: Database
    history: History


class Fate:
    def __init__(self, plan: Plan, scene: Scene, staff: Staff) -> None:
        self._loop, self._server, self._network, self._database, self._history = scene
        self._staff = staff
        self._rng = random.Random(f"{plan.seed}/fate")
        self._armed = [fault for fault in plan.faults if fault.label]
        self._counts = dict.fromkeys(self._armed, 0)
        self._over = False
        self._server.watch = self.watch
        self._database.watch = self.watch_database
        for fault in plan.faults:
            if not fault.label:
                self._loop.at(fault.at, partial(self._strike, fault, None, None))

    # When -------------------------------------------------------------------------------------------------------------

    def watch(self, client: Client, label: str, over: bool) -> bool:
        """Told of every command; False if its connection was cut before it, or its reply got lost."""
        if over:
            self._history.note("executed", client.owner, label)
        phase = "after" if over else "before"
        for fault in self._due(label, phase):
            connection = self._network.of_client(client)
            process = connection.process if connection is not None else None
            self._strike(fault, process, connection)
        return client.open

    def watch_database(self, session: Session, label: str) -> None:
        """Told of every statement that was executed, and whose answer is on its way."""
        for fault in self._due(label, "after"):
            self._strike(fault, session.process, None)
            if fault.kind == "sleep":
                session.lose()

    def crash_point(self, name: str) -> None:
        """Told whenever the engine passes one."""
        process = current()
        for fault in self._due(name, "at"):
            self._strike(fault, process, None)
        if process is not None and not process.alive:
            raise Killed

    def _due(self, label: str, phase: str) -> Iterator[Fault]:
        for fault in [each for each in self._armed if each.label == label and each.phase == phase]:
            if self._loop.now >= fault.at and not self._over:
                self._counts[fault] += 1
                if self._counts[fault] == fault.times:
                    self._armed.remove(fault)
                    yield fault

    # What -------------------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault, process: Process | None, connection: Connection | None) -> None:
        if self._over:
            return
        victim = process or self._choose(fault)
        self._history.faults.append(fault.kind)
        self._history.note("FAULT", fault.told(), "->", victim.name if victim is not None else "")
        match fault.kind:
            case "freeze server" | "kill server" | "flush scripts" | "full" | "set clock":
                self._strike_server(fault)
            case "cut session" | "silent database":
                self._strike_database(fault)
            case "lag":
                self._network.lag(fault.odds[0] * 3, fault.seconds)
            case "start":
                self._staff.hire()
            case "reset" | "lost request" | "lost reply" if victim is not None:
                self._cut(fault, victim, connection)
            case _ if victim is not None:
                self._strike_process(fault, victim)

    def _strike_server(self, fault: Fault) -> None:
        match fault.kind:
            case "freeze server":
                self.freeze_server(fault.seconds)
            case "kill server":
                self.kill_server(fault.seconds)
            case "flush scripts":
                self._server.flush_scripts()
            case "set clock":
                self._server.step_clock(fault.odds[0] * 80 - 20)
            case _:
                self._server.full = True
                self._later(fault.seconds, self._empty)

    def _strike_database(self, fault: Fault) -> None:
        if fault.kind == "silent database":
            self._database.silent_until = self._loop.now + fault.seconds
        elif self._database.sessions:
            self._rng.choice(self._database.sessions).cut()

    def _strike_process(self, fault: Fault, victim: Process) -> None:
        match fault.kind:
            case "kill" | "vanish":
                self.kill(victim, silently=fault.kind == "vanish")
                if victim.name.startswith("worker"):
                    self._later(0.2 + fault.odds[0] * 5, self._replace)
            case "stop" | "cancel":
                self._staff.dismiss(victim, cancel=fault.kind == "cancel")
                self._later(0.2 + fault.odds[0] * 5, self._replace)
            case "freeze" | "sleep":
                victim.freeze()
                self._history.impede(victim, fault.seconds)
                self._later(fault.seconds, victim.thaw)
            case "partition" | "late":
                self._history.impede(victim, 2 * fault.seconds)  # what it held up takes as long again
                both, way = fault.odds[0] < 0.5, fault.odds[1] < 0.5
                lossy = fault.kind == "partition"
                self._network.partition(victim, fault.seconds, up=both or way, down=both or not way, lossy=lossy)

    def _choose(self, fault: Fault) -> Process | None:
        workers = fault.kind in {"stop", "cancel", "freeze", "vanish"} or fault.odds[1] < 0.8
        among = self._staff.workers() if workers else self._staff.everyone()
        return among[fault.victim % len(among)] if among else None

    def _cut(self, fault: Fault, victim: Process, connection: Connection | None) -> None:
        connections = [connection] if connection is not None else self._network.of(victim)
        if fault.kind == "reset" and fault.odds[0] < 0.5 and connections:
            connections = [self._rng.choice(connections)]
        self._history.impede(victim, CUT)
        for each in connections:
            each.cut(lose=fault.kind != "lost reply" and fault.odds[1] < 0.7)

    def kill(self, victim: Process, *, silently: bool = False) -> None:
        """`silently`: nothing tells the server that its connections are dead."""
        if victim.alive:
            self._history.deaths[victim] = self._loop.now
            for connection in self._network.of(victim):
                if silently:
                    connection.open = False
                else:
                    connection.closed_by_kernel()
            victim.kill()

    def freeze_server(self, seconds: float) -> None:
        if self._server.up and not self._server.frozen:
            self._server.freeze()
            self._later(seconds, self._thaw_server)

    def _thaw_server(self) -> None:
        if self._server.frozen:
            self._history.note("THAW")
            self._server.thaw()

    def kill_server(self, seconds: float) -> None:
        if self._server.up:
            self._server.kill()
            self._later(seconds, self._start_server)

    def _start_server(self) -> None:
        if not self._server.up:
            self._history.note("SERVER IS BACK")
            self._server.start()

    def _replace(self) -> None:
        if not self._over:
            self._staff.hire()

    def _empty(self) -> None:
        self._server.full = False

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        self._loop.at(self._loop.now + seconds, undo)

    def heal(self) -> None:
        """No fault strikes any more, and what lasts ends now."""
        self._over = True
        self._history.note("HEALED")
        self._history.healed_at = self._loop.now
        self._empty()
        self._network.heal()
        self._database.silent_until = 0.0
        for process in self._staff.everyone():
            process.thaw()
        self._thaw_server()
        self._start_server()
        if not self._staff.workers():
            self._staff.hire()
