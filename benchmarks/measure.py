"""What a benchmark returns, and how it is timed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

Tick = Callable[[int], None]  # called with the number of events done since the last call


@dataclass(frozen=True)
class Figure:
    """Events per second of one contender in one round."""

    contender: str
    task: str
    events: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds


class Stopwatch:
    """`with Stopwatch() as watch: …` then watch.seconds."""

    seconds = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
