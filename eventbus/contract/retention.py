"""How much is kept of what is settled or dead, and for how long."""

from dataclasses import dataclass

from eventbus.checks.numbers import count_faults, seconds_faults
from eventbus.errors import ConfigurationError

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds for what no group needs any more. What some group has not settled is kept whatever the bounds say.

    settled       seconds that an entry stays in its stream after every group has settled it, for readers of history and
                  for publishers that repeat themselves after a lost reply
    settled_count settled entries that each priority of a stream keeps at the most, roughly
    dead          seconds that a dead letter is kept
    dead_count    dead letters that each group keeps in a stream at the most; its own oldest go first, some at a time
    """

    settled: float = 600.0
    settled_count: int = 20_000
    dead: float = 30 * DAY
    dead_count: int = 100_000

    def __post_init__(self) -> None:
        faults = seconds_faults("settled", self.settled) + count_faults("settled_count", self.settled_count, least=0)
        faults += seconds_faults("dead", self.dead) + count_faults("dead_count", self.dead_count, least=0)
        if faults:
            raise ConfigurationError(f"Retention: {'; '.join(faults)}")
