"""What publishers and handlers say of themselves, outside of the system that is tried, and what fate did to them."""

from dataclasses import dataclass, field

from tests.simulation.loop import Loop, Process, current


@dataclass(eq=False)
class Publish:
    """`outcome`: the receipt's status, the error's name, or '' if nothing came back."""

    token: int
    begun: float
    due: float
    process: Process | None = None
    ended: float | None = None
    outcome: str = ""
    event_id: str = ""


@dataclass(eq=False)
class Run:
    """One time that a handler was begun. `outcome`: done, the error's name, or '' while it runs or if it died."""

    token: int
    event_id: str
    attempt: int
    process: Process
    begun: float
    ended: float | None = None
    outcome: str = ""

    def running_at(self, moment: float) -> bool:
        return self.begun <= moment and (self.ended is None or moment < self.ended)


@dataclass(eq=False)
class Impediment:
    """For so long something kept one process from the server, or from running: `seconds` counts against its leases."""

    process: Process
    begun: float
    seconds: float

    def within(self, start: float, end: float) -> float:
        """How much of it lies there."""
        return max(0.0, min(end, self.begun + self.seconds) - max(start, self.begun))


@dataclass(eq=False)
class Stored:
    """An entry that was added to a lane of a stream. `by`: the process whose command did it; `late`: it had given up
    the connection by then, or was dead, or the command had been on the way for longer than a new relay waits."""

    event_id: str
    at: float
    entry: str
    by: str
    late: bool


@dataclass(eq=False)
class History:
    loop: Loop
    tracing: bool = False
    publishes: list[Publish] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    impediments: list[Impediment] = field(default_factory=list)
    deaths: dict[Process, float] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)
    unsettled: dict[Process, float] = field(default_factory=dict)  # when they ended, and said that some were left
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # kinds of those that struck
    healed_at: float | None = None
    over: bool = False  # what is noted from now on is of nobody's interest

    def note(self, *what: object) -> None:
        """For whoever reads the trace, and for telling two runs apart."""
        if self.over:
            return
        process = current()
        name = process.name if process is not None else "-"
        self.lines.append(f"{self.loop.now:10.4f} {name:12} {' '.join(map(str, what))}")

    def impede(self, process: Process, seconds: float) -> None:
        self.impediments.append(Impediment(process, self.loop.now, seconds))

    def impeded(self, process: Process, start: float, end: float) -> float:
        """For how long a process was held up between two moments."""
        return sum(each.within(start, end) for each in self.impediments if each.process is process)

    def died(self, process: Process) -> float:
        return self.deaths.get(process, float("inf"))
