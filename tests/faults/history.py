"""The history of a run, written by publishers and handlers outside of the system under test, and its checker.

A publish is invoked, then ok, spooled, failed or unknown: an unknown one may show up once or not at all, an ok or a
spooled one exactly once, a failed one not at all.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class History:
    """One JSON line for each thing that happened, in one write: a process that dies leaves whole lines."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / f"{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def record(self, what: str, **details: object) -> None:
        # The machine's clock itself: a test may have told this process a wrong time.
        line = {"what": what, "at": time.clock_gettime(time.CLOCK_REALTIME), "pid": os.getpid(), **details}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class Reader:
    """What all processes write into a folder. It is asked again and again while they write: no line is read twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}  # bytes
        self._lines: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        """Everything until now, in the order of time."""
        for path in self._folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read[path] = self._read.get(path, 0) + len(whole) + 1
                self._lines += map(json.loads, whole.splitlines())
        self._lines.sort(key=lambda line: line["at"])  # nearly in order already
        return list(self._lines)

    def count(self, what: str) -> int:
        return sum(line["what"] == what for line in self.lines())


@dataclass
class Observed:
    """What is there when the dust has settled. Tokens, and how often each was seen."""

    effects: Counter[int]
    dead: Counter[int]
    undecodable: int
    stored_twice: set[str]
    pending: int
    history: list[dict[str, object]] = field(default_factory=list)

    def slowest(self) -> float:
        """Seconds that the slowest publish took to be answered, one way or the other."""
        return max(float(str(line["seconds"])) for line in self.history if "seconds" in line)

    def below(self, token: int) -> "Observed":
        """What is there of the tokens below this one."""
        history = [line for line in self.history if "token" not in line or int(str(line["token"])) < token]
        effects, dead = (
            Counter({each: count for each, count in counted.items() if each < token})
            for counted in (self.effects, self.dead)
        )
        return replace(self, effects=effects, dead=dead, history=history)

    def tokens(self, what: str) -> Counter[int]:
        return Counter(int(str(line["token"])) for line in self.history if line["what"] == what)


def check(observed: Observed, *, attempts: int, poison: Iterable[int] = (), undecodable: int = 0) -> None:
    """I1 to I4 of the invariants; says all that is wrong at once.

    poison       tokens that must end as dead letters, and no others may
    undecodable  how many dead letters without a readable event there must be
    """
    poisonous = set(poison)
    ok = set(observed.tokens("publish ok")) | set(observed.tokens("publish spooled"))
    # A publisher that died between the two says nothing at all.
    unknown = set(observed.tokens("publish invoked")) - ok - set(observed.tokens("publish failed"))
    faults = {
        "acknowledged, but neither done nor dead": ok - set(observed.effects) - set(observed.dead),
        "done more than once": {token for token, count in observed.effects.items() if count > 1},
        "done, though nobody published it": set(observed.effects) - ok - unknown,
        "done, though it is poison": set(observed.effects) & poisonous,
        "dead, though it is no poison": set(observed.dead) - poisonous,
        "dead more than once": {token for token, count in observed.dead.items() if count > 1},
        "poison that is not dead": (poisonous & ok) - set(observed.dead),
        "more attempts than allowed": {
            int(str(line["token"]))
            for line in observed.history
            if line["what"] == "run" and int(str(line["attempt"])) > attempts
        },
        "effects whose event never came out": set(observed.effects) - set(observed.tokens("noted")),
        "events of effects that never were": set(observed.tokens("noted")) - set(observed.effects),
    }
    wrong: dict[str, Sequence[object]] = {name: sorted(tokens)[:20] for name, tokens in faults.items() if tokens}
    if observed.stored_twice:
        wrong["event ids that are in the stream twice"] = sorted(observed.stored_twice)[:20]
    if observed.pending:
        wrong["still pending"] = [observed.pending]
    # An event of an effect may be delivered twice (at least once), but as one and the same event.
    ids: dict[int, set[str]] = {}
    for line in observed.history:
        if line["what"] == "noted":
            ids.setdefault(int(str(line["token"])), set()).add(str(line["event_id"]))
    twice = sorted(token for token, found in ids.items() if len(found) > 1)
    if twice:
        wrong["effects whose event was made twice"] = twice[:20]
    if observed.undecodable != undecodable:
        wrong["undecodable dead letters"] = [observed.undecodable]
    assert not wrong, wrong
    assert ok, "nothing was published: this run proves nothing"
