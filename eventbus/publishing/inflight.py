"""Publishes under way: how many there may be, and how much they may weigh, served in turn."""

import asyncio
import math


class PublishSlots:
    """At most `limit` taken at a time, of `most` bytes together: `take(size)` or `await take_in_turn(size)`, and a
    `give_back(size)` for each. One that is larger than all of that has its turn when nothing else is under way.

    `len()` is how many are taken; `size` how many bytes."""

    def __init__(self, limit: int, most: float = math.inf) -> None:
        self._limit = limit
        self._most = most
        self._taken = 0  # including those that are kept for waiters which have been let in and have not run since
        self.size = 0
        self._waiting: dict[asyncio.Future[None], int] = {}

    def __len__(self) -> int:
        return self._taken

    def take(self, size: int = 0) -> bool:
        """False if there is no room, or others wait for it."""
        if self._waiting or self._taken >= self._limit or (self.size + size > self._most and self._taken):
            return False
        self._taken += 1
        self.size += size
        return True

    async def take_in_turn(self, size: int = 0) -> None:
        """When there is room, first come, first served."""
        if self.take(size):
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting[place] = size
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was kept for us
                self.give_back(size)
            elif self._waiting.pop(place, None) is not None:  # ours may be the one that did not fit
                self._let_in()
            raise
        finally:
            self._waiting.pop(place, None)

    def give_back(self, size: int = 0) -> None:
        self._taken -= 1
        self.size -= size
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._taken < self._limit:
            place, size = next(iter(self._waiting.items()))
            if self.size + size > self._most and self._taken:
                return
            del self._waiting[place]
            if not place.done():
                place.set_result(None)
                self._taken += 1
                self.size += size
