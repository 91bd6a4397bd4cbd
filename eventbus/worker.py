"""Several groups and the background roles in one process, until a signal.

Order of the end: stop reading, let handlers finish within the grace, give back what did not, settle, stop renewing
(all in the consumers), let listeners finish, then the background roles, then whoever owns the bus closes the
connections.
"""

import asyncio
import functools
import os
import secrets
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Protocol

from eventbus.bus import EventBus
from eventbus.consuming.consumer import Consumer
from eventbus.consuming.executor import Executor
from eventbus.consuming.heartbeat import Lifeline
from eventbus.consuming.suspects import Isolation
from eventbus.consuming.tap_executor import TapExecutor
from eventbus.contract.transaction import Role
from eventbus.contract.upcasting import find_gaps
from eventbus.errors import ConfigurationError
from eventbus.event import event_class
from eventbus.group import Group
from eventbus.handling.listeners import AnyListener
from eventbus.operating import control
from eventbus.operating.aborting import Aborting
from eventbus.operating.control import Watch
from eventbus.process.ending import CANCEL_GRACE, cancel_all
from eventbus.process.open_files import allow_files
from eventbus.process.safe_logging import get_logger
from eventbus.process.signals import told
from eventbus.process.supervision import supervise
from eventbus.roles.activity_counter import Counter
from eventbus.roles.execution_log import Executions
from eventbus.roles.history_group import Expiry, is_recorder
from eventbus.roles.housekeeping import Housekeeping
from eventbus.roles.recurrence import Recurrence
from eventbus.roles.state_tracker import Tracker
from eventbus.roles.stream_discovery import Seeking
from eventbus.sessions import Recovery
from eventbus.telemetry import Survey

LISTENER_GRACE = 5.0  # seconds that asynchronous listeners have when everything is settled

# Roles that only count, record and tidy: if one of these ends again and again, it is begun again for ever, and the
# worker works on. Any other role is vital: without it, events would not move, or operators' orders would be ignored.
_ANCILLARY = (Counter, Executions, Expiry, Housekeeping, Recovery, Seeking, Survey, Tracker)

log = get_logger("eventbus.worker")


class Writer(Role, Protocol):
    """A role that writes down what it was told. `close` writes what has not been written yet."""

    async def close(self) -> None: ...


class Worker:
    """Runs groups, and the outbox relay if the bus has a database (`relay=False` leaves that to other workers).

    grace: seconds that running handlers have to finish after a stop; events of those that do not are given back, with
    no attempt spent.
    listeners: are told of every execution of these groups' handlers, after those of the bus.
    """

    def __init__(
        self,
        bus: EventBus,
        groups: Sequence[Group],
        *,
        grace: float = 30.0,
        relay: bool = True,
        listeners: Sequence[AnyListener] = (),
    ) -> None:
        groups = _wanted(bus, groups)
        idle = [group.name for group in groups if not group.handlers and group.tapping is None]
        names = [group.name for group in groups]
        if not groups or idle:
            raise ConfigurationError(f"nothing to run: {', '.join(idle) or 'no groups'} (are the handlers imported?)")
        if len(set(names)) < len(names):
            raise ConfigurationError(f"two groups share a name: {', '.join(sorted(names))}")
        _check_firings(groups)
        gaps = find_gaps(event_class(event_type) for group in groups for event_type in group.handlers)
        if gaps:
            raise ConfigurationError("; ".join(gaps))
        self._bus = bus
        self._groups = list(groups)
        self._grace = grace
        self._relay = relay
        self._listeners = tuple(listeners)
        self._deadline: float | None = None
        self._stopping = asyncio.Event()
        self._consumers: list[Consumer] = []

    async def run(self, *, signals: bool = True) -> None:
        """Consume until a SIGTERM or SIGINT (in the main thread) or `stop()`, then drain; a second signal ends the
        grace. `signals=False` leaves signals to whoever runs the program: see eventbus.process.signals.

        When cancelled, it gives back what runs and raises CancelledError after a second or two; cancelled a second
        time, it ends at once. If the bus is closed meanwhile, it ends in the same way and raises ConfigurationError."""
        self._bus.affinity.check()
        allow_files()  # each stream is read over a connection of its own
        with self._bus.closing.using(), told(self._on_signal) if signals else nullcontext():
            await self._run()

    async def _run(self) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        isolation = Isolation()
        aborting = Aborting(self._bus.transport)
        tracker = Tracker(self._bus.transport.records, [group for group in self._groups if group.track])
        counter, executions = Counter(self._bus.transport.tallies), self._executions()
        executors = [self._executor(group, aborting, tracker, counter, executions) for group in self._groups]
        self._consumers = [
            Consumer(self._bus.transport, group, executor, name, isolation)
            for group, executor in zip(self._groups, executors, strict=True)
        ]
        in_process = {
            (group.name, name): consumer.in_process
            for group, consumer in zip(self._groups, self._consumers, strict=True)
        }
        watch = Watch(self._bus.transport, functools.partial(_heed, self._consumers, aborting))
        await watch.look()  # before anything starts: a group may be paused
        writers: list[Writer] = [tracker, counter, *([executions] if executions is not None else [])]
        background: list[Role] = [watch, *writers, *self._roles()]
        roles = [_keep(role) for role in background]
        running = [asyncio.create_task(consumer.run(self._remaining)) for consumer in self._consumers]
        stopping = asyncio.create_task(self._stopping.wait())
        self._bus.metrics.in_process.update(in_process)
        log.info("worker started", consumer=name, groups=[group.name for group in self._groups])
        try:
            await asyncio.wait([stopping, *roles, *running], return_when=asyncio.FIRST_COMPLETED)
            self._begin_stop()
            for consumer in self._consumers:
                consumer.stop()
            await asyncio.wait(running)  # does not cancel them with this task: they have their own way to end
            await _drain(executors, LISTENER_GRACE)
            await _close(writers)
        except asyncio.CancelledError:
            log.warning("the worker was cancelled: what runs is given back", consumer=name)
            await _cut_short(running, writers)
            raise
        finally:
            await cancel_all([stopping, *roles, *running])
            await _drain(executors, 0)
            for key in in_process:
                self._bus.metrics.in_process.pop(key, None)
        _raise_first_failure([*roles, *running])
        log.info("worker stopped", consumer=name)

    async def stop(self) -> None:
        """Ask `run` to drain and return. Returns at once; await the task of `run` to see the end."""
        self._stopping.set()

    def _executor(
        self, group: Group, aborting: Aborting, tracker: Tracker, counter: Counter, executions: Executions | None
    ) -> Executor | TapExecutor:
        if group.tapping is not None:
            listeners = [*self._bus.listeners, *self._listeners]
            return TapExecutor(
                group,
                self._bus,
                count=self._bus.metrics.count_finished,
                listeners=listeners,
                overdue=self._bus.metrics.count_overdue,
            )
        tracked = ([tracker.around], [tracker.ended]) if group.track else ([], [])
        recorded = [executions.ended] if executions is not None else []
        return Executor(
            group,
            self._bus,
            aborting=aborting,
            counts=[self._bus.metrics.count_finished, counter.count],
            middleware=[*tracked[0], *self._bus.middleware],
            listeners=[*tracked[1], *recorded, *self._bus.listeners, *self._listeners],
            overdue=self._bus.metrics.count_overdue,
        )

    def nudge(self) -> None:
        """Look now for events that are due: the transport's clock was moved."""
        for consumer in self._consumers:
            consumer.nudge()

    def _roles(self) -> list[Role]:
        streams = sorted({stream for group in self._groups for stream in group.streams})
        housekeeping = Housekeeping(self._bus.transport, streams, self._bus.retention)
        roles: list[Role] = [
            housekeeping,
            Survey(self._bus.metrics, self._bus.transport, self._bus.database, streams),
            Recovery(self._bus.transport, self._bus.metrics.count_collected),
        ]
        taps = [consumer.follow for consumer in self._consumers if consumer.taps_all]
        if taps:
            roles.append(Seeking(self._bus.transport, [*taps, housekeeping.follow]))
        database, kept = self._bus.database, self._bus.history_kept
        if database is not None and kept is not None and any(is_recorder(group) for group in self._groups):
            roles.append(Expiry(database.recorder, kept))
        transport = self._bus.transport
        keeper = transport.keeper()
        if keeper is not None:
            shortest = min(group.lease for group in self._groups)
            roles.append(Lifeline(keeper, [consumer.in_hand for consumer in self._consumers], shortest))
        if any(group.recurring for group in self._groups):
            roles.append(Recurrence(transport, self._groups))
        if self._relay and (relay := self._bus.transactions.relay(transport, lambda: transport.primary)) is not None:
            roles.append(relay)
        return roles

    def _executions(self) -> Executions | None:
        if self._bus.database is None or self._bus.history_kept is None:
            return None
        return Executions(self._bus.database.recorder)

    def _begin_stop(self) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._grace

    def _remaining(self) -> float:
        return self._grace if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

    def _on_signal(self, number: int) -> None:
        # Act first, log afterwards: where stdout is a broken pipe, logging raises.
        if self._stopping.is_set():
            self._deadline = 0.0
            log.warning("second signal: running handlers are given back now", signal=signal.Signals(number).name)
            return
        self._stopping.set()
        log.info("draining", signal=signal.Signals(number).name, grace=self._grace)


def _keep(role: Role) -> asyncio.Task[None]:
    name = type(role).__name__.lower()
    return asyncio.create_task(supervise(name, role.run, vital=not isinstance(role, _ANCILLARY)), name=name)


def _check_firings(groups: Sequence[Group]) -> None:
    """Raises ConfigurationError if the firings of two groups would go to one stream, as those of `a-b` and `a.b`."""
    owners: dict[str, str] = {}
    for group in groups:
        for recurring in group.recurring:
            owner = owners.setdefault(recurring.stream, group.name)
            if owner != group.name:
                raise ConfigurationError(
                    f"the firings of groups {owner!r} and {group.name!r} would share the stream {recurring.stream!r}: "
                    "let the names differ in more than '-', '.' and '_'"
                )


def _wanted(bus: EventBus, groups: Sequence[Group]) -> list[Group]:
    """The groups to run: where history is off, without the recorder. Raises ConfigurationError if none is left."""
    wanted = [group for group in groups if bus.history_kept is not None or not is_recorder(group)]
    if groups and not wanted:
        raise ConfigurationError("history is off: set EVENTBUS_HISTORY_DAYS, or EventBus(history=…)")
    return wanted


async def _close(writers: Sequence[Writer]) -> None:
    await asyncio.gather(*(writer.close() for writer in writers))


async def _cut_short(consumers: Sequence[asyncio.Task[None]], writers: Sequence[Writer]) -> None:
    for task in consumers:
        if not task.cancelling():  # the end of asyncio.run cancels every task there is, and twice means at once
            task.cancel()
    await asyncio.wait(consumers)
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_GRACE):
            await _close(writers)


async def _drain(executors: Sequence[Executor | TapExecutor], seconds: float) -> None:
    await asyncio.gather(*(executor.drain(seconds) for executor in executors))


def _heed(consumers: Sequence[Consumer], aborting: Aborting, controls: Mapping[str, bytes]) -> None:
    single = [consumer for consumer in consumers if not consumer.taps]  # a tap runs many events in one task
    aborting.heed(controls, lambda: [each for consumer in single for each in consumer.in_hand().running.items()])
    for consumer in consumers:
        consumer.press_aborted()
    pauses = control.pauses(controls)
    for consumer in consumers:
        consumer.pause(consumer.group_name in pauses)


def _raise_first_failure(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
