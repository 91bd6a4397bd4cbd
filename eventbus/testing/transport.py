"""The transport of MemoryBus."""

import asyncio
from collections.abc import Sequence

from eventbus.contract.dead_letters import DeadLetter
from eventbus.contract.delivery import Refusal, Settlement
from eventbus.contract.limiting import Answer, Request
from eventbus.contract.limits import RateLimit
from eventbus.contract.outgoing import Outgoing
from eventbus.event import Envelope, Status
from eventbus.memory import MemoryTransport

ASK_AGAIN = 0.001  # seconds, real ones


class RecordingTransport(MemoryTransport):
    """The transport, on a clock that stands still; it remembers what was published, and tells when something ended."""

    def __init__(self) -> None:
        self.now = 0.0  # the constructor below asks for it
        super().__init__(lambda: self.now)
        self.progress = asyncio.Event()
        self.appended: list[Outgoing] = []
        self.held: dict[str, float] = {}  # entries in hand, and when the group's rate lets them start

    async def append(self, outgoing: Sequence[Outgoing], *, again: bool = False) -> list[Status]:
        statuses = await super().append(outgoing, again=again)
        pairs = zip(outgoing, statuses, strict=True)
        self.appended += [item for item, status in pairs if status is not Status.DUPLICATE]
        return statuses

    def _store_collected(self, envelope: Envelope) -> None:
        super()._store_collected(envelope)
        self.appended.append(Outgoing(envelope))

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Refusal]:
        refusals = await super().settle(settlements)
        for delivery, _ in settlements:
            self.held.pop(delivery.entry_id, None)
        self.progress.set()
        return refusals

    async def admit(self, requests: Sequence[Request], most: int) -> list[Answer]:
        """What a limit over the whole group refuses asks again at once: the clock decides when its time has come."""
        answers, before = await super().admit(requests, most), dict(self.held)
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            entry_id = request.member.rpartition("/")[2]
            self.held.pop(entry_id, None)
            if answer.refused is None or answer.refused.limit.by is not None:
                continue
            if isinstance(answer.refused.limit, RateLimit):
                self.held[entry_id] = self.now + answer.wait
            answers[place] = answer._replace(wait=min(answer.wait, ASK_AGAIN))
        if self.held != before:
            self.progress.set()
        return answers

    def letters(self) -> list[DeadLetter]:
        return [letter for log in self._logs.values() for letter in log.dead.values()]
