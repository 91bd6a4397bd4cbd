"""What must be true when a schedule is over: the invariants that every fault is held against.

kept        every acknowledged publish is done, or a dead letter that it was meant to be
once        no event id is in its stream twice; an unknown publish is there once or not at all
alone       no handler is begun while the same event runs in a process that lives and was not held up
final       what a living process has done is not done again
attempts    no more than the cap, and one for each failure; dead letters are the poison, exactly
on time     what is delayed is never early, and a retry neither
drained     nothing is left in pending lists, schedules, outbox or the records beside them; workers end
counted     what the lanes have taken in is counted as acknowledged or buried, or it is pending, or still to come; and
            what was scheduled as promoted or withdrawn, or it is there
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from tests.simulation.history import History, Run, Stored
from tests.simulation.plan import ATTEMPTS, BACKOFF, LEASE, Plan, Work

# Seconds for which one process may be held up by itself without losing a lease: two renewals of three may fail.
HELD_UP = LEASE * 0.3
BEFORE = 2 * LEASE  # seconds before a second run in which such an impediment counts
BROKEN = {"reset", "lost request", "lost reply", "flush scripts", "cut session", "silent database"}
PROMPT = 4.0  # seconds; several connections may break one after the other
ACKNOWLEDGED = {"stored", "scheduled", "committed"}
TICK = 0.002  # seconds; clocks of servers count milliseconds


@dataclass
class Left:
    """How many are left where, and the event ids of the dead letters."""

    pending: int
    undelivered: int
    due: int
    waiting: int
    scheduled: int
    retry: int
    failures: int
    crashes: int
    dead: list[str]
    uncounted: int  # entries that are taken in, and neither counted nor there
    unscheduled: int  # events that went into the schedule, and are neither there nor counted as they came out


def judge(plan: Plan, history: History, left: Left, *, drained: bool, stopped: bool) -> list[str]:
    """All that is wrong."""
    stored = Counter(stored.event_id for stored in history.stored if not _given_up(history, stored))
    twice = {event_id for event_id, count in stored.items() if count > 1}
    more = {event_id for event_id, count in Counter(each.event_id for each in history.stored).items() if count > 1}
    wrong = [_stored_twice(history, event_id) for event_id in sorted(twice)]
    if not drained:
        wrong.append(f"not drained: {left}")
    if not stopped:
        wrong.append("a worker that was told to stop does not end")
    if drained:
        wrong += _leftovers(left)
    if left.uncounted:
        wrong.append(f"the counts miss {left.uncounted} entries")
    if left.unscheduled:
        wrong.append(f"the counts miss {left.unscheduled} scheduled events")
    wrong += _kept(plan, history, left, more, drained=drained)
    wrong += _prompt(plan, history)
    for event_id in sorted({run.event_id for run in history.runs} - more):
        runs = [run for run in history.runs if run.event_id == event_id]
        work = plan.work[runs[0].token]
        wrong += _alone(history, runs)
        wrong += _final(history, runs)
        wrong += _attempts(work, runs)
        wrong += [] if "set clock" in history.faults else _on_time(history, work, runs)
    return wrong


def _leftovers(left: Left) -> list[str]:
    beside = {"retry": left.retry, "scheduled": left.scheduled, "failures": left.failures, "crashes": left.crashes}
    return [f"{count} left in {name!r} though nothing is pending" for name, count in beside.items() if count]


def _kept(plan: Plan, history: History, left: Left, more: set[str], *, drained: bool) -> list[str]:
    """`more`: those that are in their stream more than once, which is told, or given up."""
    done = {run.token for run in history.runs if run.outcome == "done"}
    dead = {publish.token for publish in history.publishes if publish.event_id in left.dead}
    wrong = [
        f"{publish.token} was acknowledged ({publish.outcome}), and is neither done nor dead"
        for publish in history.publishes
        if drained and publish.outcome in ACKNOWLEDGED and publish.token not in done | dead
    ]
    poison = {work.token for work in plan.work if work.poison}
    wrong += [f"{token} is dead, though it is no poison" for token in sorted(dead - poison)]
    wrong += [f"{token} is done, though it is poison" for token in sorted(done & poison)]
    buried = Counter(event_id for event_id in left.dead if event_id not in more)
    if twice := sorted(event_id for event_id, count in buried.items() if count > 1):
        wrong.append(f"dead more than once: {twice}")
    return wrong


def _prompt(plan: Plan, history: History) -> list[str]:
    """With slots for all, and nobody dead, frozen or cut off."""
    if not set(history.faults) <= BROKEN or plan.concurrency < len(plan.work):
        return []
    begun: dict[str, float] = {}
    for run in history.runs:
        begun.setdefault(run.event_id, run.begun)
    return [
        f"{stored.event_id} is waiting since {stored.at:.3f}"
        for stored in history.stored
        if begun.get(stored.event_id, history.loop.now) > stored.at + PROMPT
    ]


def _given_up(history: History, stored: Stored) -> bool:
    """What decision 0005 gives up: the first try of a process that is executed behind the repeat of another one."""
    others = [each for each in history.stored if each.event_id == stored.event_id and each.at <= stored.at]
    return stored.late and any(each.by != stored.by for each in others)


def _stored_twice(history: History, event_id: str) -> str:
    at = [f"{stored.at:.3f}" for stored in history.stored if stored.event_id == event_id]
    return f"{event_id} is in the stream more than once, since {', '.join(at)}"


def _alone(history: History, runs: list[Run]) -> list[str]:
    wrong = []
    for place, again in enumerate(runs):
        for run in runs[:place]:
            if not run.running_at(again.begun) or history.died(run.process) <= again.begun:
                continue
            if run.process is again.process:
                wrong.append(f"{run.token} runs twice at a time in {run.process.name}, at {again.begun:.3f}")
            elif history.impeded(run.process, again.begun - BEFORE, again.begun) < HELD_UP:
                wrong.append(
                    f"{run.token} is begun by {again.process.name} at {again.begun:.3f} while {run.process.name}, which"
                    f" lives and was not held up, runs it since {run.begun:.3f}"
                )
    return wrong


def _unimpeded(history: History, run: Run, again: Run, since: float) -> bool:
    """Neither of them was frozen or cut off: else the lease was lost, or who begins does not know that it is."""
    return all(history.impeded(each.process, since, again.begun) < HELD_UP for each in (run, again))


def _final(history: History, runs: list[Run]) -> list[str]:
    wrong = []
    for place, again in enumerate(runs):
        for run in runs[:place]:
            if run.outcome != "done" or run.ended is None or run.ended > again.begun:
                continue
            lived = min(history.died(run.process), history.unsettled.get(run.process, inf)) > again.begun
            if lived and _unimpeded(history, run, again, run.ended - BEFORE):
                wrong.append(
                    f"{run.token} is begun by {again.process.name} at {again.begun:.3f} though {run.process.name},"
                    f" which lives and was not held up, had done it at {run.ended:.3f}"
                )
    return wrong


def _attempts(work: Work, runs: list[Run]) -> list[str]:
    wrong = [f"{run.token} has attempt {run.attempt}" for run in runs if not 1 <= run.attempt <= ATTEMPTS]
    for run in runs:
        failed = sum(other.outcome == "ValueError" and other.ended <= run.begun for other in runs if other.ended)
        if run.attempt > failed + 1:
            wrong.append(f"{run.token} is at attempt {run.attempt}, and has failed {failed} times")
    failed = sum(run.outcome == "ValueError" for run in runs)
    if work.poison and len(runs) >= ATTEMPTS and not failed:
        wrong.append(f"{work.token} ran {len(runs)} times and never failed")
    return wrong


def _on_time(history: History, work: Work, runs: list[Run]) -> list[str]:
    due = history.publishes[work.token].due
    wrong = [f"{run.token} is begun at {run.begun:.3f}, due at {due:.3f}" for run in runs if run.begun < due - TICK]
    for run, again in pairwise(runs):
        due = (run.ended or 0.0) + BACKOFF
        if run.outcome == "ValueError" and again.attempt == run.attempt + 1 and again.begun < due - TICK:
            wrong.append(f"{run.token} is tried again at {again.begun:.3f}, due at {due:.3f}")
    return wrong
