"""Handlers that go on though their time is up: they have swallowed their cancellation, or clean up for long.

Such a handler is logged, cancelled again a few times, and at last given up: its place is free, its event has failed
with a TimeoutError, or Cancelled if it was aborted, and its later result is ignored. When this happens is said in
eventbus.process.task_deadlines.
"""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from eventbus.contract.delivery import Delivery, Outcome
from eventbus.errors import Cancelled
from eventbus.process import task_deadlines
from eventbus.process.loop import abandon
from eventbus.process.safe_logging import get_logger

Task = asyncio.Task[Any]
TOLD = 10  # event ids of a batch that the log names

log = get_logger("eventbus.overruns")


def tell(group: str, handler: str, event_ids: Sequence[str], seconds: float, *, last: bool) -> None:
    """seconds: since its time was up."""
    done = "done with: the attempt has failed" if last else "cancelled again"
    named: dict[str, object] = {"event_id": event_ids[0]} if len(event_ids) == 1 else {"event_ids": event_ids[:TOLD]}
    log.error(
        f"a handler goes on though its time is up, and is {done}",
        **{"group": group, "handler": handler, "count": len(event_ids), "seconds": round(seconds, 1), **named},
    )


class Overruns:
    """Of one consumer: what its deadlines call when a task goes on.

    running  deliveries that run, and their tasks
    label    the name of the handler of an event type
    fail     makes the outcome of an event whose handler is given up
    ended    is told that outcome
    go_on    is called with the task of a handler that was given up: others may start now
    count    is told the group, once for each task that goes on
    """

    def __init__(
        self,
        group: str,
        running: MutableMapping[Delivery, asyncio.Task[None]],
        *,
        label: Callable[[bytes], str],
        fail: Callable[[Delivery, BaseException], Outcome],
        ended: Callable[[Delivery, Outcome], None],
        go_on: Callable[[Task], None],
        count: Callable[[str], None],
    ) -> None:
        self._group = group
        self._running = running
        self._label = label
        self._fail = fail
        self._ended = ended
        self._go_on = go_on
        self._count = count
        self._aborted: dict[Delivery, tuple[float, int]] = {}  # since when, and how often it was cancelled again

    def press(self, now: float) -> None:
        """Treat handlers that were aborted and go on like those whose time is up. `now`: the loop's time."""
        aborted = [delivery for delivery in self._running if delivery.aborted is not None]
        self._aborted = {delivery: self._aborted.get(delivery, (now, 0)) for delivery in aborted}
        for delivery, (since, pressed) in list(self._aborted.items()):
            seconds, task = now - since, self._running.get(delivery)
            if task is None or seconds < task_deadlines.PATIENCE + pressed * task_deadlines.AGAIN:
                continue
            last = pressed >= task_deadlines.TIMES
            if last or not pressed:
                self.outlived(task, seconds, last)
            if not last:
                self._aborted[delivery] = (since, pressed + 1)
                task.cancel()

    def outlived(self, task: Task, seconds: float, last: bool) -> None:
        deliveries = [delivery for delivery, running in self._running.items() if running is task]
        if not deliveries:
            return
        if not last:
            self._count(self._group)
        ids = [delivery.fields.get(b"id", b"").decode(errors="replace") for delivery in deliveries]
        tell(self._group, self._label(deliveries[0].fields.get(b"type", b"")), ids, seconds, last=last)
        if last:
            self._give_up(task, deliveries, seconds)

    def _give_up(self, task: Task, deliveries: Sequence[Delivery], seconds: float) -> None:
        for delivery in deliveries:
            delivery.given_up = True
            error = TimeoutError(f"it went on for {seconds:.0f} s after its time was up, though it was cancelled")
            reason = delivery.aborted
            outcome = self._fail(delivery, error if reason is None else Cancelled(reason))
            del self._running[delivery]
            self._ended(delivery, outcome)
        abandon(task)
        self._go_on(task)
