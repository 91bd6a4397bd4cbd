"""The slow lane: handlers that run for long step aside, so that others of their group start meanwhile.

So a service that hangs holds up the handlers that call it, and no others: see eventbus.contract.limits.SlowLane.
"""

import asyncio
from collections.abc import Callable, Collection

from eventbus.contract.delivery import Delivery
from eventbus.contract.limits import SlowLane

LOOKS = 4  # in the lane's `after` seconds: a handler steps aside a quarter of that late at most


class Slow:
    """Puts what runs for long into `aside`; whoever ends a delivery takes it out again.

    moved  is called when some have stepped aside"""

    def __init__(
        self,
        lane: SlowLane,
        running: Collection[Delivery],
        aside: set[Delivery],
        moved: Callable[[], None],
    ) -> None:
        self._lane = lane
        self._running = running
        self._aside = aside
        self._moved = moved
        self._seen: dict[Delivery, float] = {}  # what runs, and when it was first found running

    async def run(self) -> None:
        """Until cancelled. Costs nothing for each event: handlers that end between two looks are never looked at."""
        while True:
            await asyncio.sleep(self._lane.after / LOOKS)
            if self._look(asyncio.get_running_loop().time()):
                self._moved()

    def _look(self, now: float) -> bool:
        """Returns whether some have stepped aside."""
        self._seen = {delivery: self._seen.get(delivery, now) for delivery in self._running}
        long = [delivery for delivery, since in self._seen.items() if now - since >= self._lane.after]
        free = self._lane.places - len(self._aside)
        stepping = [delivery for delivery in long if delivery not in self._aside][:free]
        self._aside.update(stepping)
        return bool(stepping)
