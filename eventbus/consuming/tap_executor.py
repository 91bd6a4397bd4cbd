"""From deliveries to outcomes for a tap: many at a time, without opening what they carry."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from eventbus.consuming.executor import Count
from eventbus.consuming.stubborn_handlers import Overruns
from eventbus.consuming.undecodable import bury_undecodable
from eventbus.context import HandlerBus
from eventbus.contract.codec import decode
from eventbus.contract.delivery import Ack, Dead, Delivery, Outcome, Release
from eventbus.contract.tap import Passing
from eventbus.errors import CodecError, Unavailable
from eventbus.group import Group
from eventbus.handling.listeners import Announcer, AnyListener, Finished
from eventbus.handling.verdict import GivenBack, failure_of, judge, leaves
from eventbus.process.ending import Ending
from eventbus.process.safe_logging import get_logger
from eventbus.process.task_deadlines import TaskDeadlines, limit

UNAVAILABLE_PAUSE = 1.0  # seconds until another try, while a server is away
_DONE, _RELEASED = Ack(), Release()

log = get_logger("eventbus.tapping")


class TapExecutor:
    """Runs the tap of one group. A batch that the tap is to be handed again stays in hand meanwhile: so nothing new is
    read, and a server that is away for an hour costs no more than one batch and its leases.

    count, listeners  as of eventbus.consuming.executor.Executor
    """

    def __init__(
        self,
        group: Group,
        bus: HandlerBus,
        *,
        count: Count | None = None,
        listeners: Sequence[AnyListener] = (),
        overdue: Callable[[str], None] = lambda _group: None,
    ) -> None:
        assert group.tapping is not None, "a group with a tap"
        self._group = group
        self._tap = group.tapping
        self._bus = bus
        self._count = count
        told = [*listeners, *group.listeners]
        self._announcer = Announcer(group.name, told) if told else None
        self._waiting: set[asyncio.Future[None]] = set()
        self.ending = Ending()
        self.overdue = overdue
        self.overruns: Overruns | None = None  # set by the consumer
        timeout = group.tapping.timeout
        self._deadlines = None if timeout is None else TaskDeadlines(timeout, self._outlived)

    async def execute(self, delivery: Delivery) -> Outcome:
        """As `execute_all`, for one delivery."""
        [outcome] = await self.execute_all([delivery])
        return outcome

    async def execute_all(self, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """An outcome for each, in order. Never raises."""
        started = perf_counter()
        found: list[Passing | CodecError] = [_look(delivery) for delivery in deliveries]
        passing = [each for each in found if isinstance(each, Passing)]
        failure, attempts = await self._hand_over(passing) if passing else (None, 0)
        if deliveries[0].given_up:  # and so are all others of its batch
            return [_RELEASED] * len(deliveries)
        seconds = perf_counter() - started
        outcomes: list[Outcome] = []
        for delivery, each in zip(deliveries, found, strict=True):
            error = each if isinstance(each, CodecError) else each.error or failure
            outcome = _DONE if error is None else self._judge(delivery, each, error, attempts)
            outcomes.append(outcome)
            envelope = each.envelope if isinstance(each, Passing) else None
            self._tell(Finished(self._group.name, delivery, outcome, envelope, seconds, error, self._bus))
        return outcomes

    def _tell(self, finished: Finished) -> None:
        try:
            if self._count is not None:
                self._count(finished.group, finished.outcome, finished.envelope, finished.seconds)
            if self._announcer is not None:
                self._announcer.tell(finished)
        except Exception:  # the outcome is decided, and stays so even if somebody could not be told
            log.exception("an outcome was not told to all", group=finished.group, entry_id=finished.delivery.entry_id)

    def give_back(self) -> None:
        """Batches that wait to be handed over again end with Release, now."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(GivenBack())

    def abandon(self) -> None:
        """Nothing is to be done: a batch is one task, which the caller ends."""

    async def drain(self, seconds: float) -> None:
        """Give listeners that are still at work so long to end, then cancel them."""
        if self._announcer is not None:
            await self._announcer.drain(seconds)

    def fail(self, delivery: Delivery, error: BaseException) -> Outcome:
        """The outcome of a delivery whose batch is given up."""
        each = _look(delivery)
        outcome = self._judge(delivery, each, error, delivery.attempt)
        envelope = each.envelope if isinstance(each, Passing) else None
        self._tell(Finished(self._group.name, delivery, outcome, envelope, 0.0, error, self._bus))
        return outcome

    def _outlived(self, task: "asyncio.Task[Any]", seconds: float, last: bool) -> None:
        if self.overruns is not None:
            self.overruns.outlived(task, seconds, last)

    async def _hand_over(self, passing: Sequence[Passing]) -> tuple[BaseException | None, int]:
        """The error with which the batch failed for good, or None, and the number of attempts; GivenBack if it ended
        without a result."""
        failures = 0
        while True:
            for each in passing:
                each.error = None
            error = await self._attempt(passing)
            if error is None or isinstance(error, GivenBack):
                return error, failures + 1
            if all(isinstance(each, Unavailable) for each in leaves(error)):
                pause = UNAVAILABLE_PAUSE
                log.debug("put off", group=self._group.name, count=len(passing), reason=str(error))
            else:
                failures += 1
                delay = self._group.retry.delay_after(failures, error)
                if delay is None:
                    return error, failures
                pause, told = delay, failure_of(error).error
                log.warning("failed, will retry", group=self._group.name, count=len(passing), error=told, delay=pause)
            try:
                await self._pause(pause)
            except (GivenBack, asyncio.CancelledError):
                return GivenBack(), failures

    async def _attempt(self, passing: Sequence[Passing]) -> BaseException | None:
        task = asyncio.current_task()
        assert task is not None
        try:
            with limit(self._deadlines):
                await self._tap.handler(passing, self._bus)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its failure, sys.exit() too
            if task.cancelling() and (reason := self.ending.reason) is not None:  # its error does not count
                told = repr(error)
                log.warning("given back", group=self._group.name, count=len(passing), reason=reason, error=told)
                return GivenBack()
            return error
        return None

    async def _pause(self, seconds: float) -> None:
        """Wait. Raises GivenBack as soon as `give_back` is called."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=seconds)
            if waiting.done():
                waiting.result()
        finally:
            self._waiting.discard(waiting)

    def _judge(self, delivery: Delivery, each: Passing | CodecError, error: BaseException, attempts: int) -> Outcome:
        if isinstance(each, CodecError):
            return bury_undecodable(delivery, each)
        if isinstance(error, GivenBack):
            return _RELEASED
        outcome = judge(error, self._group.retry, delivery.attempt if each.error is not None else attempts)
        if isinstance(outcome, Dead):
            log.error("dead letter", **delivery.named(), reason=outcome.failure.error)
        return outcome


def _look(delivery: Delivery) -> Passing | CodecError:
    try:
        return Passing(decode(delivery.fields), delivery.fields)
    except CodecError as error:
        return error
