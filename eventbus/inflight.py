"""Publishes under way: how many there may be, served in turn."""

import asyncio


class Places:
    """At most `limit` taken at a time: `take()` or `await take_in_turn()`, and a `give_back()` for each.

    `len()` is how many are taken."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0  # those too that are kept for who has been let in and has not run since
        self._waiting: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return self._taken

    def take(self) -> bool:
        """False if there is no room, or others wait for it."""
        if self._waiting or self._taken >= self._limit:
            return False
        self._taken += 1
        return True

    async def take_in_turn(self) -> None:
        """When there is room, first come, first served."""
        if self.take():
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting[place] = None
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was kept for us
                self.give_back()
            raise
        finally:
            self._waiting.pop(place, None)

    def give_back(self) -> None:
        self._taken -= 1
        while self._waiting and self._taken < self._limit:
            place = next(iter(self._waiting))
            del self._waiting[place]
            if not place.done():
                place.set_result(None)
                self._taken += 1
