"""While a server is away, all callers share one try to reach it.

closed   everybody tries
open     somebody has failed: one try at a time, first soon, then once a second; the others wait for its outcome
away     that try has failed as well, or nobody had an answer in time: callers that have another way take it at once
"""

import asyncio

from eventbus.errors import Unavailable

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between tries


class Breaker:
    """Tell it how each try ended: `failed` or `succeeded`. Ask `admits` before the next, and `turn` to wait for it.

    `open`, `away`: see above.
    """

    def __init__(self) -> None:
        self.open = False
        self.away = False
        self._reason: tuple[str, str] = ("", "")
        self._pause = FIRST_PAUSE
        self._next_try = 0.0
        self._waiting: dict[asyncio.Future[None], None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def admits(self) -> bool:
        """Whether the caller may try now. While open, that is for one caller in each pause."""
        if not self.open:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._next_try:
            return False
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._next_try = now + self._pause
        return True

    def failed(self, reason: Unavailable, *, away: bool) -> None:
        """`away`: the server is known to be away; it is not just that an answer was lost."""
        self._reason = (reason.server, reason.detail)
        if not self.open:
            self.open, self._pause = True, FIRST_PAUSE
            self._next_try = asyncio.get_running_loop().time() + FIRST_PAUSE
        if away and not self.away:
            self.away = True
            self._wake_all()

    def succeeded(self) -> None:
        self.open = self.away = False
        self._wake_all()

    def refusal(self) -> Unavailable:
        """Why it is open: a new exception for each caller, since in a shared one tracebacks would add up."""
        return Unavailable(*self._reason)

    async def turn(self) -> None:
        """Returns when it is worth asking `admits` and looking at `away` again."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        self._waiting[waiting] = None
        if self._timer is None:
            self._timer = loop.call_at(self._next_try, self._tick)
        try:
            await waiting
        finally:
            self._waiting.pop(waiting, None)

    def _tick(self) -> None:
        """Wakes the youngest, who has most time left: the oldest may be about to give up.

        Whether it goes on to try or is cancelled meanwhile, the next tick wakes another."""
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._waiting:
            youngest, _ = self._waiting.popitem()
            if not youngest.done():
                youngest.set_result(None)
        if self._waiting:
            self._timer = loop.call_at(max(self._next_try, loop.time() + FIRST_PAUSE), self._tick)

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting:
            if not one.done():
                one.set_result(None)
