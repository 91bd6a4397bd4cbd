"""Dead letters: which there are, and what is done to one or to many of them: `bus.dead_letters`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple

from eventbus.contract.dead_letters import DeadLetter, DeadLetterStore
from eventbus.errors import EventBusError

PAGE = 200


class NotFound(EventBusError):
    """There is no such dead letter."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant: those for which all of this holds. A field that is None asks for nothing.

    type   an event type, or a pattern such as `lead.*`; what is no envelope has no type
    error  a part of the error, in upper or lower case
    older_than, newer_than  how long ago it died
    subject, organization   of its event
    """

    group: str | None = None
    type: str | None = None
    error: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    subject: str | None = None
    organization: str | None = None

    def means(self, letter: DeadLetter, now: datetime) -> bool:
        age, envelope = now - letter.died_at, letter.envelope
        return (
            (self.group is None or letter.group == self.group)
            and (self.type is None or (envelope is not None and fnmatchcase(envelope.type, self.type)))
            and (self.subject is None or (envelope is not None and envelope.subject == self.subject))
            and (self.organization is None or (envelope is not None and envelope.organization == self.organization))
            and (self.error is None or self.error.lower() in letter.error.lower())
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
        )

    def __bool__(self) -> bool:
        return any(getattr(self, name) is not None for name in self.__slots__)

    def described(self) -> dict[str, str]:
        """For an audit line: what was asked for, durations in seconds."""
        asked = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}
        return {
            name: f"{value.total_seconds():g}s" if isinstance(value, timedelta) else value
            for name, value in asked.items()
        }


class Reference(NamedTuple):
    """How a person names a dead letter: STREAM/ID."""

    stream: str
    id: str

    def __str__(self) -> str:
        return f"{self.stream}/{self.id}"

    @classmethod
    def parse(cls, text: str) -> "Reference":
        stream, _, letter_id = text.partition("/")
        return cls(stream, letter_id)

    @classmethod
    def of(cls, letter: DeadLetter) -> "Reference":
        return cls(letter.stream, letter.id)


@dataclass(slots=True)
class Swept:
    """What became of many: `done`, `gone` (somebody else was quicker), `left` (no envelope, so not to be replayed)."""

    done: int = 0
    gone: int = 0
    left: int = 0


class DeadLetters:
    """The dead letters of a bus. Every call may raise Unavailable, and `replay` Full."""

    def __init__(self, store: DeadLetterStore) -> None:
        self._store = store

    async def select(self, wanted: Filter = Filter()) -> AsyncIterator[DeadLetter]:
        """Those that the filter means: oldest first within each stream."""
        now = datetime.now(UTC)
        for stream in await self._store.streams():
            after = ""
            while page := await self._store.dead_letters(stream, after=after, limit=PAGE):
                for letter in page:
                    if wanted.means(letter, now):
                        yield letter
                after = page[-1].id

    async def find(self, reference: Reference) -> DeadLetter:
        """Raises NotFound."""
        letter = await self._store.dead_letter(*reference)
        if letter is None:
            raise NotFound(
                f"there is no dead letter {str(reference)!r}: `eventbus dead list` shows those that there are"
            )
        return letter

    async def replay(
        self, references: Iterable[Reference], *, rate: float | None = None, swept: Swept | None = None
    ) -> Swept:
        """Put dead letters back into their streams, one after the other and at most `rate` a second, each for the group
        where it died. What is no envelope stays. `swept` is counted up meanwhile: it is right when this is cut short,
        too."""
        return await self._sweep(references, self._store.replay, rate, swept or Swept(), envelopes_only=True)

    async def discard(
        self, references: Iterable[Reference], *, rate: float | None = None, swept: Swept | None = None
    ) -> Swept:
        """Forget dead letters for good, as `replay` puts them back."""
        return await self._sweep(references, self._store.discard, rate, swept or Swept(), envelopes_only=False)

    async def _sweep(
        self,
        references: Iterable[Reference],
        act: Callable[[DeadLetter], Awaitable[bool]],
        rate: float | None,
        swept: Swept,
        *,
        envelopes_only: bool,
    ) -> Swept:
        loop = asyncio.get_running_loop()
        started = loop.time()
        for number, reference in enumerate(references):
            if rate is not None and (wait := started + number / rate - loop.time()) > 0:
                await asyncio.sleep(wait)
            letter = await self._store.dead_letter(*reference)
            if letter is not None and letter.envelope is None and envelopes_only:
                swept.left += 1
            elif letter is not None and await act(letter):
                swept.done += 1
            else:
                swept.gone += 1
        return swept
