"""One group in one process: the loops between transport and executor. They move deliveries and decide nothing.

    read     per stream: new events, for all free slots and as many ahead of them as the group's pace allows
    reclaim  per stream: due retries, leases that ran out; sleeps until the next is due
    renew    keeps the leases of what is in hand: see eventbus.consuming.lease_renewal
    settle   hands outcomes back: see eventbus.consuming.settler
    slow     moves handlers that take long out of their slots, where the group has a slow lane

Longer than other files: the loops, the slots and the drain share one state, and are easier to follow side by side.

Each loop goes on while a server is away: it tries again, and the transport logs once that the server is gone.
"""

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import monotonic

from eventbus.consuming.executor import Executor
from eventbus.consuming.heartbeat import InHand
from eventbus.consuming.lease_renewal import Hand, Renewal
from eventbus.consuming.limit_admission import Admission
from eventbus.consuming.limit_queue import Gate
from eventbus.consuming.prefetch import Pace
from eventbus.consuming.runner import Runners
from eventbus.consuming.settler import Settler
from eventbus.consuming.slow_lane import Slow
from eventbus.consuming.stubborn_handlers import Overruns
from eventbus.consuming.suspects import Isolation
from eventbus.consuming.tap_executor import TapExecutor
from eventbus.consuming.tap_runner import Gathering
from eventbus.contract.broker import Broker
from eventbus.contract.delivery import Ack, Delivery, Outcome, Reclaimed, Release, Settlement, Snooze, Subscription
from eventbus.errors import EventBusError, Unavailable
from eventbus.group import Group
from eventbus.handling.verdict import judge_unforeseen
from eventbus.process import crash_points, ending
from eventbus.process.ending import cancel_all
from eventbus.process.loop import abandon
from eventbus.process.safe_logging import get_logger
from eventbus.process.supervision import Background, Run, supervise

READ_WAIT = 3.0  # seconds that a read waits; a half-open connection is noticed a little later
TAP_READ_WAIT = 15.0  # seconds that a read of a tap waits, which reads many streams and is in no hurry
INTERRUPT_INTERVAL = 0.02  # seconds
RECLAIM_INTERVAL = 1.0  # seconds; G7 allows a lease + 1 s
CANCEL_GRACE = 5.0  # seconds that a handler has to end when it is cancelled
SETTLE_GRACE = 5.0  # seconds that the last outcomes may take when the worker stops; then their leases run out
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between tries while a server is away

log = get_logger("eventbus.consumer")


class Consumer:
    """`run()` until `stop()`. Every delivery in hand is in `_held` from its arrival until it is settled: see Hand."""

    def __init__(
        self, transport: Broker, group: Group, executor: Executor | TapExecutor, name: str, isolation: Isolation
    ) -> None:
        self._transport = transport
        self._group = group
        self._executor = executor
        self._ending = executor.ending
        self._isolation = isolation
        self._name = name
        self._subscriptions = [self._subscription(stream) for stream in group.streams]
        self._read_wait = READ_WAIT if group.tapping is None else TAP_READ_WAIT
        self._sources: list[asyncio.Task[None]] = []
        self._in_hand = group.in_hand
        self._lease = group.lease
        self._pace = Pace(group.in_hand)
        self._reading = 0  # reads under way
        self._ahead = 0  # events that may be in hand beyond those that run: see eventbus.consuming.prefetch
        self._held: dict[Delivery, float] = {}
        self._aside: set[Delivery] = set()  # those of `_running` that take no slot: see eventbus.consuming.slow_lane
        self._runners = self._make_runners()
        self._ready, self._running = self._runners.ready, self._runners.running
        executor.overruns = Overruns(
            group.name,
            self._running,
            label=group.label_of,
            fail=executor.fail,
            ended=self._finish,
            go_on=self._go_on_without,
            count=executor.overdue,
        )
        self._stopping = asyncio.Event()
        self._room = asyncio.Event()
        self._begun = False
        self._paused = False
        self._background = Background(f"consumer of {group.name}")
        self._failure: BaseException | None = None  # the error of a loop that the group cannot do without
        self._admission = Admission(transport, group)
        self._settler = Settler(transport, self._admission, self._let_go, self._pause)
        self._outcomes, self._settle_due = self._settler.line, self._settler.due
        hand = Hand(group.lease, self._held, self._running, self._withdraw, self._finish, monotonic)
        self._renewal = Renewal(transport, self._admission, hand)
        self._gate = self._make_gate() if self._admission.needed else None
        self._nudges = {subscription.stream: asyncio.Event() for subscription in self._subscriptions}

    @property
    def taps(self) -> bool:
        return self._group.tapping is not None

    @property
    def taps_all(self) -> bool:
        """Whether the group taps all streams, and so is to be told of new ones: see `follow`."""
        return self._group.tapping is not None and not self._group.tapping.streams

    @property
    def group_name(self) -> str:
        return self._group.name

    async def run(self, grace: Callable[[], float]) -> None:
        """Consume until `stop()`, then drain: `grace()` tells how many seconds running handlers still have. When
        cancelled, it drains in a second or two, without any grace; cancelled a second time, it ends at once.

        Order of the end: stop reading, let handlers finish, give back what did not, settle it all, stop renewing, close
        the connections that read. If one of its loops ends again and again, it ends in the same order, and raises what
        that loop raised."""
        self._room.set()
        sources = self._sources = [source for each in self._subscriptions for source in self._begin(each)]
        self._begun = True
        if self._gate is not None:
            sources.append(asyncio.create_task(self._gate_until_stop(self._gate), name=f"admit:{self._group.name}"))
        staying = [self._keep("settle", self._settler.run), self._keep("renew", self._renewal.run), *self._step_aside()]
        self._ending.begin()
        orderly = False
        try:
            await self._stopping.wait()
            await asyncio.gather(self._interrupt(), _over(sources), self._drain(grace))
            await self._wait_settled(SETTLE_GRACE)
            orderly = True
        except asyncio.CancelledError:
            await self._cut_short(sources, staying)
            orderly = True
            raise
        finally:
            for task in self._running.values():
                task.cancel()
            if self._running:
                await self._end_handlers(0)
            await cancel_all([*sources, *staying, *self._background.tasks, *self._runners.launched])
            await self._transport.unsubscribe(self._subscriptions, give_back=orderly)
        if self._failure is not None:
            raise self._failure

    def follow(self, stream: str) -> None:
        """Read this stream, too, from now on."""
        if self._stopping.is_set() or any(known.stream == stream for known in self._subscriptions):
            return
        subscription = self._subscription(stream)
        self._subscriptions.append(subscription)
        self._nudges[stream] = asyncio.Event()
        if self._begun:
            self._sources += self._begin(subscription)

    def _subscription(self, stream: str) -> Subscription:
        group = self._group
        return Subscription(stream, group.name, self._name, group.lease, group.crash_budget, group.ordered)

    def _begin(self, subscription: Subscription) -> list[asyncio.Task[None]]:
        return [
            self._keep(f"{what}:{subscription.stream}", functools.partial(loop, subscription), endless=False)
            for what, loop in (("read", self._read), ("reclaim", self._reclaim))
        ]

    def _make_runners(self) -> Runners | Gathering:
        group, executor = self._group, self._executor
        if isinstance(executor, TapExecutor):
            assert group.tapping is not None, "a group with a tap"
            execute_all = functools.partial(self._execute_all, executor)
            return Gathering(group.tapping, group.concurrency, execute_all, self._finish, self._look_for_room)
        stretch = -1.0 if group.task_per_event else None
        return Runners(group.in_hand, self._execute, self._finish, self._look_for_room, self._aside, stretch=stretch)

    def _make_gate(self) -> Gate:
        return Gate(
            self._admission,
            admit=self._admit,
            put_off=self._put_off,
            fail=self._refuse,
            slots=self._slots_left,
            nudge=self.nudge,
        )

    def _step_aside(self) -> list[asyncio.Task[None]]:
        lane = self._group.slow_lane
        if lane is None:
            return []
        slow = Slow(lane, self._running, self._aside, self._start)
        return [self._keep("slow", slow.run)]

    def _keep(self, what: str, run: Run, *, endless: bool = True) -> asyncio.Task[None]:
        """Start a loop that the group cannot do without: if it ends for good, the worker ends with the loop's error."""
        name = f"{what}:{self._group.name}"
        task = asyncio.create_task(supervise(name, run, vital=True, endless=endless), name=name)
        task.add_done_callback(self._look_at)
        return task

    def _look_at(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = self._failure or failure
            self.stop()

    def in_hand(self) -> InHand:
        """Copies of what this consumer holds. May be called from any thread: to copy a dict is one interpreter step."""
        return InHand(self._group, self._held.copy(), self._running.copy())

    def stop(self) -> None:
        """Take nothing more; `run` returns when what is in hand has been dealt with."""
        self._stopping.set()
        self._runners.open = False
        self._room.set()
        self.nudge()

    def nudge(self) -> None:
        """Look now for events that are due, earlier than expected: for example, the transport's clock was moved."""
        for nudge in self._nudges.values():
            nudge.set()

    def pause(self, paused: bool) -> None:
        """Take nothing new, and give back what has not started; or go on."""
        if paused == self._paused or self._stopping.is_set():
            return
        self._paused, self._runners.open = paused, not paused
        log.warning("paused" if paused else "resumed", group=self._group.name)
        if paused:
            self._give_back()
            self._background.start(self._interrupt())
        self._start()
        self.nudge()

    async def _gate_until_stop(self, gate: Gate) -> None:
        running = self._keep("admit", gate.run)
        try:
            await self._stopping.wait()
        finally:  # the gate must not outlive this task when `run` is cancelled
            await cancel_all([running])

    async def _interrupt(self) -> None:
        """Interrupt waiting reads until none is left. Once is not enough: a read that reaches the server after the
        interrupt is not woken by it."""
        with suppress(EventBusError):  # the reads then end by themselves, after READ_WAIT or TAP_READ_WAIT
            while self._reading and not self._taking():
                await self._transport.interrupt(self._subscriptions)
                await asyncio.sleep(INTERRUPT_INTERVAL)

    def in_process(self) -> int:
        """How many handlers run now, or are about to. May be asked from any thread."""
        return len(self._running)

    # Sources ----------------------------------------------------------------------------------------------------------

    async def _read(self, subscription: Subscription) -> None:
        async def step() -> None:
            await self._room.wait()
            if not self._stopping.is_set():
                self._ahead = self._pace.measure(asyncio.get_running_loop().time()) if self._gate is None else 0
                wanted = self._wanted()
                if wanted <= 0:  # another loop has taken the room meanwhile
                    self._room.clear()
                    return
                self._reading += 1
                asked = monotonic()
                try:
                    deliveries = await self._transport.read(subscription, wanted, self._read_wait)
                finally:
                    self._reading -= 1
                if deliveries:
                    crash_points.point("consumer.read")
                self._take(deliveries, asked)

        await self._repeat(step)

    async def _reclaim(self, subscription: Subscription) -> None:
        nudge = self._nudges[subscription.stream]

        async def step() -> None:
            nudge.clear()
            # New events fill every free slot at once. Retries get a share on top, or their turn would never come.
            share = self._retry_share()
            asked = monotonic()
            found = await self._transport.reclaim(subscription, max(self._free(), share))
            if found.deliveries:
                crash_points.point("consumer.reclaimed")
            self._take(found.deliveries, asked)
            if found.suspects and self._taking():
                await self._run_suspect(subscription)
                return
            if found.deliveries and len(found.deliveries) >= share:
                return  # there may be more
            await _within(self._reclaim_pause(found), nudge.wait())

        await self._repeat(step)

    def _reclaim_pause(self, found: Reclaimed) -> float:
        if self._group.tapping is not None:  # others promote scheduled events; a tap's own retries and leases can wait
            return max(RECLAIM_INTERVAL, found.quiet)
        return RECLAIM_INTERVAL if found.next_due is None else min(found.next_due, RECLAIM_INTERVAL)

    async def _run_suspect(self, subscription: Subscription) -> None:
        """See eventbus.consuming.suspects: the suspect is taken over when nothing else runs, and not before."""
        async with self._isolation.alone():
            if not self._taking():
                return
            # One suspect at a time. With batches, half of a set run together: hundreds one by one would take hours.
            credit = self._in_hand if self._group.batches else 1
            asked = monotonic()
            found = await self._transport.reclaim(subscription, credit, suspect=True)
            await self._run_together(found.deliveries, asked)
        if not found.deliveries:  # another process was quicker
            await _within(RECLAIM_INTERVAL / 4, self._stopping.wait())

    async def _run_together(self, suspects: Sequence[Delivery], asked: float) -> None:
        for delivery in suspects:
            delivery.together = len(suspects)
            self._held[delivery] = asked
            task = asyncio.create_task(self._run_alone(delivery))
            if not task.done():  # a program's task factory may have run it at once
                self._running[delivery] = task
        while tasks := [self._running[each] for each in suspects if self._is_running(each)]:
            # This ends even if a suspect does not: it is taken out of `_running` when the worker stops.
            await asyncio.wait(tasks, timeout=RECLAIM_INTERVAL)

    def _is_running(self, delivery: Delivery) -> bool:
        return delivery in self._running and not self._running[delivery].done()

    def _take(self, deliveries: list[Delivery], asked: float) -> None:
        """`asked`: when they were asked for. Their leases may have begun then, however late the answer came."""
        self._held.update(dict.fromkeys(deliveries, asked))
        if not self._taking():
            for delivery in deliveries:
                self._finish(delivery, Release())
            self._look_for_room()
        elif self._gate is not None:
            self._gate.put(deliveries)
            self._start()
        else:
            self._admit(deliveries)

    def _admit(self, deliveries: list[Delivery]) -> None:
        self._ready.extend(deliveries)
        self._start()

    def _withdraw(self, delivery: Delivery) -> bool:
        if delivery in self._ready:
            self._ready.remove(delivery)
            return True
        return self._gate is not None and self._gate.withdraw(delivery)

    def _put_off(self, delivery: Delivery, snooze: Snooze) -> None:
        self._finish(delivery, snooze)
        self._look_for_room()

    def _refuse(self, delivery: Delivery, error: BaseException) -> None:
        """Fail a delivery whose handler has not started, with this error."""
        assert isinstance(self._executor, Executor), "a tap has no limits"
        self._finish(delivery, self._executor.fail(delivery, error))
        self._look_for_room()

    # Running ----------------------------------------------------------------------------------------------------------

    def _taking(self) -> bool:
        return not self._paused and not self._stopping.is_set()

    def _closed(self) -> bool:
        """Whether nothing is to be taken in hand at all."""
        return self._paused or self._settler.full

    def _free(self) -> int:
        """How many more deliveries may be taken in hand."""
        if self._closed():
            return 0
        free = self._slots_left()
        return free if self._gate is None else self._gate.room(free)

    def _slots_left(self) -> int:
        return self._in_hand - len(self._running) + len(self._aside) - len(self._ready)

    def _wanted(self) -> int:
        """How many events are to be read now."""
        if self._closed():
            return 0
        free = self._free()
        wanted = free + self._ahead
        # With no free slot, read only when half of the prefetch is open: a read costs more than an event.
        return wanted if free > 0 or 2 * wanted >= self._ahead else 0

    def _retry_share(self) -> int:
        """How many retries may be taken in hand even when new events fill every slot."""
        busy = self._closed() or len(self._ready) > self._ahead
        share = 0 if busy else math.ceil(self._in_hand / 4)
        return share if self._gate is None else self._gate.room(share)

    def _start(self) -> None:
        if self._ready:
            self._runners.start()
        if self._wanted() > 0:
            self._room.set()
        elif not self._stopping.is_set():
            self._room.clear()

    async def _execute(self, delivery: Delivery) -> Outcome:
        try:
            if not self._isolation.enter_at_once():
                await self._isolation.enter()
        except asyncio.CancelledError:
            return Release()
        try:
            if monotonic() - self._held.get(delivery, 0.0) >= self._lease and not await self._ours([delivery]):
                return Release()
            return await self._executor.execute(delivery)
        except Exception as error:  # noqa: BLE001 - `execute` never raises; if it does, the event must not run endlessly
            return self._unforeseen(delivery, error)
        finally:
            self._isolation.leave()

    async def _execute_all(self, executor: TapExecutor, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        try:
            if not self._isolation.enter_at_once():
                await self._isolation.enter()
        except asyncio.CancelledError:
            return [Release()] * len(deliveries)
        try:
            ours = await self._ours(deliveries)
            if ours is deliveries:  # nearly always
                return await executor.execute_all(deliveries)
            outcomes = dict(zip(ours, await executor.execute_all(ours), strict=True)) if ours else {}
            return [outcomes.get(delivery, Release()) for delivery in deliveries]
        except Exception as error:  # noqa: BLE001 - as above
            return [self._unforeseen(delivery, error) for delivery in deliveries]
        finally:
            self._isolation.leave()

    async def _ours(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that may begin here, none if cancelled. Leases that ran out are checked first: the process may have
        been stopped, or the server's answer late."""
        now, lease, held = monotonic(), self._lease, self._held
        if all(now - held.get(delivery, 0.0) < lease for delivery in deliveries):
            return deliveries
        try:
            return [delivery for delivery in deliveries if await self._renewal.sure(delivery)]
        except asyncio.CancelledError:
            return []

    async def _run_alone(self, delivery: Delivery) -> None:
        """Run a suspect, while everything else waits."""
        outcome: Outcome = Release()
        task = asyncio.current_task()
        assert task is not None
        self._running[delivery] = task
        try:
            if await self._ours([delivery]):
                outcome = await self._executor.execute(delivery)
        except Exception as error:  # noqa: BLE001 - as above
            outcome = self._unforeseen(delivery, error)
        finally:
            if self._running.pop(delivery, None) is not None:  # else whoever took it out has finished it
                self._finish(delivery, outcome)
                self._start()

    def _unforeseen(self, delivery: Delivery, error: Exception) -> Outcome:
        outcome = judge_unforeseen(error, delivery.attempt)
        log.error("an execution broke outside of its handler", **delivery.named(), exc_info=error)
        return outcome

    def _finish(self, delivery: Delivery, outcome: Outcome) -> None:
        self._outcomes.append(tuple.__new__(Settlement, (delivery, outcome)))  # hot path: quicker than Settlement(…)
        if self._aside:
            self._aside.discard(delivery)
        self._pace.ended += 1
        self._settle_due.set()

    def press_aborted(self) -> None:
        """Press on handlers that were aborted and go on. Not in batches: their events end with the batch, aborted or
        not."""
        if self._executor.overruns is not None and not (self.taps or self._group.batches):
            self._executor.overruns.press(asyncio.get_running_loop().time())

    def _go_on_without(self, task: asyncio.Task[None]) -> None:
        self._runners.let_go(task)
        self._start()

    def _look_for_room(self) -> None:
        if self._gate is not None:
            self._gate.look()
        if not self._room.is_set() and self._wanted() > 0:
            self._room.set()

    # Holding and letting go -------------------------------------------------------------------------------------------

    def _let_go(self, batch: Sequence[Settlement]) -> None:
        for delivery, outcome in batch:
            self._held.pop(delivery, None)
            if not isinstance(outcome, Ack):
                # A due time that the reclaim loop does not know of yet.
                self._nudges[delivery.subscription.stream].set()
        if self._group.ordered:
            for subscription in self._subscriptions:
                self._take(self._transport.freed(subscription), self._settler.asked)
        self._start()

    # The end ----------------------------------------------------------------------------------------------------------

    def _give_back(self) -> None:
        """Release what has not started: any consumer may take it."""
        waiting = [*self._ready, *(self._gate.clear() if self._gate is not None else ())]
        self._ready.clear()
        for delivery in waiting:
            self._finish(delivery, Release())
        self._executor.give_back()

    async def _drain(self, grace: Callable[[], float]) -> None:
        self._give_back()
        while self._running and grace() > 0:
            self._executor.give_back()  # executions that had begun may have joined a batch since
            await asyncio.wait(self._running.values(), timeout=min(grace(), 0.1))
        self._ending.grace_is_over()
        for task in self._running.values():
            task.cancel()
        if self._running:
            await self._end_handlers(CANCEL_GRACE)

    async def _cut_short(self, sources: list[asyncio.Task[None]], staying: list[asyncio.Task[None]]) -> None:
        """Stop within a second or two: see eventbus.process.ending. The tasks in `sources` and `staying` may have been
        cancelled together with this one."""
        self.stop()
        for task in (*self._running.values(), *self._runners.launched):
            task.cancel()
        self._give_back()
        sources.append(asyncio.create_task(self._interrupt()))
        await asyncio.wait([*sources, *self._running.values()], timeout=ending.CANCEL_GRACE)
        if self._running:
            await self._end_handlers(0)
        await cancel_all(sources)
        await cancel_all(staying)
        staying.append(asyncio.create_task(self._settler.run(), name=f"settle:{self._group.name}"))
        await self._wait_settled(ending.CANCEL_GRACE)

    async def _end_handlers(self, seconds: float) -> None:
        """Wait for handlers that were cancelled. Those that do not end are abandoned, and their events released."""
        await asyncio.wait(self._running.values(), timeout=seconds)
        stubborn = dict(self._running)
        if stubborn:
            self._executor.abandon()
        for delivery, task in stubborn.items():
            log.error(
                "a handler does not end though it was cancelled: its event is given back",
                group=self._group.name,
                handler=self._group.label_of(delivery.fields.get(b"type", b"")),
                entry_id=delivery.entry_id,
            )
            abandon(task)
        for delivery in stubborn.keys() & self._running.keys():  # even closed, these have not ended
            del self._running[delivery]
            self._finish(delivery, Release())

    async def _wait_settled(self, seconds: float) -> None:
        self._settler.end()
        deadline = asyncio.get_running_loop().time() + seconds
        while len(self._held) > self._settler.given_up and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        if self._held:
            log.warning(
                "stopped with unsettled events; they run again elsewhere", group=self._group.name, count=len(self._held)
            )

    # Staying alive ----------------------------------------------------------------------------------------------------

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                await step()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a loop that ends takes the whole group with it
                failures = await self._pause(failures, error)

    async def _pause(self, failures: int, error: Exception) -> int:
        if not isinstance(error, Unavailable) and failures % 60 == 0:  # when it begins, then once a minute
            log.error("the group goes on after an error", group=self._group.name, error=str(error), exc_info=error)
        pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
        if self._stopping.is_set():
            await asyncio.sleep(pause)
        else:
            await _within(pause, self._stopping.wait())
        return failures + 1


async def _over(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Return when all of them have ended, in whatever way."""
    if tasks:
        await asyncio.wait(tasks)


async def _within(seconds: float, waiting: Awaitable[object]) -> None:
    """Wait for something, but not longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return
