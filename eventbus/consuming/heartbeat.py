"""Telling a blocked process from a dead one: a thread that keeps the leases while the event loop cannot.

A handler that computes for a minute, or makes a blocking call, stops every loop of its process, that of the renewals
too. The process is alive all the same, and running its events elsewhere would run them twice. So a thread asks the
event loop for a sign of life several times a lease, and renews in its place for as long as none comes.

The thread does not renew for ever. When the loop has been blocked for longer than the group's timeout and one lease on
top, the group's leases are let go: the time that a handler may take is over, and nothing inside the process can end it.
A process that is frozen or dead loses its leases all the same, and so does one whose thread gets no turn because an
extension does not release the interpreter's lock.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from eventbus.contract.delivery import Delivery
from eventbus.contract.transport import LeaseKeeper
from eventbus.group import Group
from eventbus.process.safe_logging import get_logger

LOOKS = 8  # a lease. The loop renews at a third of a lease, two looks find it blocked: five twelfths are left then
STACK_LIMIT = 20  # frames

log = get_logger("eventbus.lifeline")


class InHand(NamedTuple):
    """What a consumer holds, and which tasks run its handlers: copies, for another thread to read."""

    group: Group
    held: Mapping[Delivery, float]
    running: Mapping[Delivery, asyncio.Task[None]]


class Lifeline:
    """One for each worker: `run()` for as long as there are leases to keep.

    `consumers` are asked from a thread what they hold: each answers with copies."""

    def __init__(self, keeper: LeaseKeeper, consumers: Sequence[Callable[[], InHand]], shortest_lease: float) -> None:
        self._keeper = keeper
        self._consumers = consumers
        self._lease = shortest_lease
        self._interval = shortest_lease / LOOKS
        self._beat = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0

    async def run(self) -> None:
        """Raises what the thread raised, if the thread ends."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._ended.clear()  # it may have run before
        failed = self._loop.create_future()
        thread = threading.Thread(target=self._watch_until, args=(failed,), name="eventbus-lifeline", daemon=True)
        thread.start()
        try:
            await failed
        finally:
            self._ended.set()
            self._beat.set()  # or the thread would wait for a sign of life from this loop, which waits for the thread
            thread.join()

    # In the thread ----------------------------------------------------------------------------------------------------

    def _watch_until(self, failed: asyncio.Future[None]) -> None:
        assert self._loop is not None
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - a thread that ends tells nobody
            with suppress(RuntimeError):  # the loop is closed: there is nothing to watch any more
                self._loop.call_soon_threadsafe(_fail, failed, error)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            if any(hand.held for hand in self._hands()) and not self._answers():
                self._stand_in()

    def _answers(self) -> bool:
        """Whether the loop gives a sign of life. True as well if this thread got no turn: nothing is known then."""
        assert self._loop is not None
        self._beat.clear()
        if self._ended.is_set():  # checked after `clear`: `run` sets it before `_beat`, so that one of both is seen
            return True
        asked_at = time.monotonic()
        self._loop.call_soon_threadsafe(self._beat.set)
        return self._beat.wait(self._interval) or time.monotonic() - asked_at > self._lease / 2

    def _stand_in(self) -> None:
        """Renew until the loop is back."""
        blocked_at, renew_at = time.monotonic() - self._interval, 0.0
        suspects, stack = self._suspects(), self._stack()
        told = False
        while not self._ended.is_set():
            now = time.monotonic()
            if now >= renew_at and self._renew(now - blocked_at):
                renew_at = now + self._lease / 3
            if not told:  # after the first renewal: writing to the log may take long
                told = True
                log.warning("event loop blocked", **suspects, stack=stack)
            if self._beat.wait(self._interval):
                break
        self._keeper.close()
        log.warning("event loop runs again", seconds=round(time.monotonic() - blocked_at, 2))

    def _renew(self, blocked: float) -> bool:
        """Renew the leases that may still be kept after so many seconds; False if the server could not be told."""
        kept = [delivery for hand in self._hands() if blocked < _patience(hand.group) for delivery in hand.held]
        try:
            if kept:
                self._keeper.renew(kept)
        except Exception as error:  # noqa: BLE001 - this thread must not end: the next try may succeed
            log.debug("leases not renewed", reason=str(error))
            return False
        return True

    def _hands(self) -> list[InHand]:
        return [in_hand() for in_hand in self._consumers]

    def _suspects(self) -> dict[str, object]:
        """For the log: the handler that blocks the loop; if it is not known, all that have begun, ten by their ids."""
        task = asyncio.current_task(self._loop)
        begun = [
            (hand.group.name, _event_id(delivery), running is task)
            for hand in self._hands()
            for delivery, running in hand.running.items()
        ]
        for group, event_id, on_the_loop in begun:
            if on_the_loop:
                return {"group": group, "event_id": event_id}
        return {"groups": sorted({group for group, _, _ in begun}), "event_ids": [name for _, name, _ in begun[:10]]}

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame, limit=STACK_LIMIT)) if frame else ""


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _patience(group: Group) -> float:
    """Seconds for which the leases of a group are kept while the loop is blocked."""
    return float("inf") if group.timeout is None else group.timeout + group.lease


def _event_id(delivery: Delivery) -> str:
    return delivery.fields.get(b"id", b"").decode(errors="replace")
