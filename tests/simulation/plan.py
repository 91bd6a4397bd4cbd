"""What a schedule is made of, all of it drawn from its seed: who is there, what is published, what fate does when."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eventbus.consuming.suspects import PATIENCE

HORIZON = 25.0  # seconds in which events are published and faults strike
LEASE = 10.0  # seconds
ATTEMPTS = 3
BACKOFF = 0.5  # seconds

LABELS = (
    "reclaim",
    "renew",
    "park",
    "ack",
    "bury",
    "read",
    "WAIT",
    "SERVED",
    "XADD",
    "append_again",
    "schedule",
    "promote",
    "OWN",
)
CRASHES = ("consumer.read", "consumer.reclaimed", "consumer.settle", "consumer.settled", "relay.appended")


class Work(NamedTuple):
    """One event. `fails`: attempts that fail; `through`: 'direct' or 'outbox'; `commits`: seconds until it does."""

    token: int
    at: float
    publisher: int
    seconds: float
    fails: int
    delay: float
    priority: int
    through: str
    commits: float

    @property
    def poison(self) -> bool:
        return self.fails >= ATTEMPTS


class Fault(NamedTuple):
    """`kind` strikes `victim` at a moment; or when a command of this label is executed for the nth time ('before', or
    'after': its reply is still to be sent); or at the nth pass of a crash point."""

    kind: str
    victim: int
    at: float
    seconds: float
    label: str = ""
    phase: str = ""
    times: int = 1
    odds: tuple[float, float] = (0.0, 0.0)  # to decide with what else there is to decide

    def told(self) -> str:
        when = f"{self.phase} {self.label} #{self.times} from {self.at:.2f}" if self.label else f"at {self.at:.2f}"
        return f"{self.kind} of {self.victim} {when} for {self.seconds:.2f}"


@dataclass(frozen=True)
class Plan:
    seed: int
    workers: int
    publishers: int
    concurrency: int
    work: list[Work]
    faults: list[Fault] = field(default_factory=list)

    def longest(self, deaths: int) -> float:
        """Seconds that handlers take: for the longest of it, or for all of it where they may wait for each other, in a
        group with few slots, or because they have met two deaths and run alone."""
        each = [work.seconds * min(ATTEMPTS, work.fails + 1) for work in self.work]
        return max(each) if self.concurrency >= len(each) and deaths < 2 else sum(each) + PATIENCE * len(each)

    def told(self) -> list[str]:
        head = f"seed {self.seed}: {self.workers} workers with {self.concurrency} slots, {self.publishers} publishers"
        return [head, *map(str, self.work), *(fault.told() for fault in self.faults)]


# What fate has to offer, and how often it takes which.
KINDS = {
    "kill": 3,
    "vanish": 1,
    "stop": 1,
    "freeze": 2,
    "freeze server": 4,
    "kill server": 2,
    "reset": 3,
    "lost request": 2,
    "lost reply": 3,
    "partition": 2,
    "late": 3,
    "lag": 1,
    "cut session": 1,
    "silent database": 1,
    "start": 1,
    "flush scripts": 1,
    "full": 1,
    "set clock": 1,
    "cancel": 1,
}
_AT_COMMANDS = {
    "kill",
    "freeze",
    "freeze server",
    "kill server",
    "reset",
    "lost request",
    "lost reply",
    "partition",
    "late",
}


def draw(seed: int, extra: Sequence[Fault] = (), also: Sequence[Work] = ()) -> Plan:
    """`extra`: faults beside those that are drawn; `also`: events beside those, whose tokens are given here."""
    rng = random.Random(f"{seed}/plan")
    publishers = rng.choice((1, 1, 2))
    outbox = rng.random() < 0.4
    work = [_work(rng, token, publishers, outbox=outbox) for token in range(rng.randint(3, 10))]
    work += [each._replace(token=len(work) + number) for number, each in enumerate(also)]
    faults = [_fault(rng) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4)))]
    if outbox and rng.random() < 0.7:
        faults.append(_fault_of_outbox(rng))
    return Plan(seed, rng.choice((1, 2, 2, 2, 3)), publishers, rng.choice((1, 3, 10, 10)), work, [*faults, *extra])


def _work(rng: random.Random, token: int, publishers: int, *, outbox: bool) -> Work:
    through = "outbox" if outbox and rng.random() < 0.7 else "direct"
    return Work(
        token,
        at=rng.uniform(0.5, HORIZON * 0.8),
        publisher=rng.randrange(publishers),
        seconds=rng.choice((0.0, 0.0, rng.uniform(0, 1), rng.uniform(2, 9), rng.uniform(10, 25))),
        fails=rng.choice((0, 0, 0, 0, 1, 2, 3)),
        delay=rng.choice((0.0, 0.0, 0.0, rng.uniform(0.05, 6.0))) if through == "direct" else 0.0,
        priority=rng.choice((5, 5, 5, 1, 9)) if through == "direct" else 5,
        through=through,
        commits=rng.choice((0.0, rng.uniform(0, 0.2), rng.uniform(0, 6))),
    )


def _fault_of_outbox(rng: random.Random) -> Fault:
    """One that meets the relay in the middle: `sleep` is a machine that sleeps for so long that its session ends."""
    kind, label, phase = rng.choice(
        (
            ("lost reply", rng.choice(("XADD", "append_again")), "after"),
            ("lost request", "XADD", "before"),
            ("cut session", "", ""),
            ("silent database", "", ""),
            ("sleep", "PROVE", "after"),
            ("kill", rng.choice(("SELECT", "UPDATE")), "after"),
        )
    )
    at, odds = rng.uniform(2, HORIZON * 0.8), (rng.random(), rng.random())
    seconds = rng.choice((rng.uniform(0.05, 1.1), rng.uniform(1.1, 8)))
    return Fault(kind, rng.randrange(100), at, seconds, label, phase, rng.choice((1, 1, 2, 3)), odds)


def _fault(rng: random.Random, kind: str = "", label: str = "") -> Fault:
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    seconds = rng.choice((rng.uniform(0.1, 2), rng.uniform(2, 7), rng.uniform(7, 16)))
    at, victim, odds = rng.uniform(0.5, HORIZON), rng.randrange(100), (rng.random(), rng.random())
    if kind in _AT_COMMANDS and (label or rng.random() < 0.6):
        label = label or rng.choice(LABELS)
        phase = (
            "before" if kind == "lost request" else "after" if kind == "lost reply" else rng.choice(("before", "after"))
        )
        return Fault(
            kind, victim, at * rng.choice((0.0, 1.0)), seconds, label, phase, rng.choice((1, 1, 2, 3, 5)), odds
        )
    if kind == "kill" and rng.random() < 0.7:
        return Fault(kind, victim, at, seconds, rng.choice(CRASHES), "at", rng.choice((1, 1, 2)), odds)
    return Fault(kind, victim, at, seconds, odds=odds)
