"""Keys and what they hold, with the commands' common ground: types, expiry, the clock."""

from collections.abc import Callable
from typing import TypeVar

from tests.simulation.server.replies import WRONG_TYPE, Refused
from tests.simulation.server.streams import Stream

T = TypeVar("T", bytes, dict[bytes, bytes], "SortedSet", list[bytes], set[bytes], Stream)


class SortedSet(dict[bytes, float]):
    """Scores by member; `ranked` in order."""

    def ranked(self) -> list[tuple[bytes, float]]:
        return sorted(self.items(), key=lambda item: (item[1], item[0]))


Value = bytes | dict[bytes, bytes] | SortedSet | list[bytes] | set[bytes] | Stream


class Keyspace:
    """One database. `now`: tells microseconds since the epoch by the server's clock; a script holds it still.

    `dirty`: keys of streams that were added to since somebody looked. `added`: is told of each XADD."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._held: int | None = None
        self.values: dict[bytes, Value] = {}
        self._expires: dict[bytes, int] = {}  # ms
        self.dirty: list[bytes] = []
        self.added: Callable[[bytes, bytes, list[bytes]], None] = lambda _key, _entry, _fields: None

    def micros(self) -> int:
        return self._now() if self._held is None else self._held

    def ms(self) -> int:
        return self.micros() // 1000

    def hold_clock(self) -> None:
        """For as long as a script runs."""
        self._held = self._now()

    def release_clock(self) -> None:
        self._held = None

    def find(self, key: bytes, kind: type[T]) -> T | None:
        """The value; None if there is none. Raises Refused if it is of another type."""
        if key in self._expires and self._expires[key] <= self.ms():
            self.delete(key)
        value = self.values.get(key)
        if value is None:
            return None
        if type(value) is not kind:
            raise Refused(WRONG_TYPE)
        return value

    def exists(self, key: bytes) -> bool:
        if key in self._expires and self._expires[key] <= self.ms():
            self.delete(key)
        return key in self.values

    def make(self, key: bytes, kind: Callable[[], T]) -> T:
        """The value, made if there is none."""
        value = self.find(key, kind)  # type: ignore[arg-type]  # the class is its own factory
        if value is None:
            value = self.values[key] = kind()
        return value

    def set(self, key: bytes, value: Value) -> None:
        self.delete(key)
        self.values[key] = value

    def delete(self, key: bytes) -> bool:
        self._expires.pop(key, None)
        return self.values.pop(key, None) is not None

    def shed(self, key: bytes) -> None:
        """What has become empty is no key any more; a stream is one for ever."""
        value = self.values.get(key)
        if not value and not isinstance(value, Stream):
            self.delete(key)

    def expire(self, key: bytes, at: int) -> bool:
        """At this ms since the epoch."""
        if not self.exists(key):
            return False
        self._expires[key] = at
        if at <= self.ms():
            self.delete(key)
        return True

    def persist(self, key: bytes) -> bool:
        return self.exists(key) and self._expires.pop(key, None) is not None

    def expires_at(self, key: bytes) -> int | None:
        return self._expires.get(key)

    def clear(self) -> None:
        self.values.clear()
        self._expires.clear()
