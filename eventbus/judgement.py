"""From what a handler raised to what becomes of its event. Knows no handler and no transport.

Verdicts say it themselves; of everything else the policy decides. Of an exception group every exception inside is
judged, and the most severe outcome holds for the event: a dead letter, then a retry, then a snooze, then a release;
of two alike, the one that waits longer.
"""

import dataclasses
import traceback
from collections.abc import Iterator

from eventbus.errors import Reject, RetryLater, SnoozeFor, Unavailable, hide_password
from eventbus.policy import RetryPolicy
from eventbus.transport import Dead, Failure, Outcome, Release, Retry, Snooze

UNAVAILABLE_SNOOZE = 1.0  # seconds until a handler that met a server which is away is run again
_ERROR_LIMIT, _TRACEBACK_LIMIT = 1_000, 16_000  # characters kept in a dead letter


class GivenBack(BaseException):
    """Ends an execution that had not reached its handler when the worker stopped: the event is released.

    A BaseException, so that no `except Exception` of middleware makes a failure of it."""


def judge(error: BaseException, policy: RetryPolicy, attempt: int) -> Outcome:
    """What becomes of an event whose `attempt` (from 1) ended with this error."""
    decisive, outcome = max(
        ((each, _judge_one(each, policy, attempt)) for each in leaves(error)), key=lambda judged: _severity(judged[1])
    )
    if isinstance(outcome, Retry | Dead) and decisive is not error:
        whole = failure_of(error)
        failure = Failure(f"{whole.error}: {outcome.failure.error}"[:_ERROR_LIMIT], whole.traceback)
        return dataclasses.replace(outcome, failure=failure)
    return outcome


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of an exception group, however deep; any other is its own."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def failure_of(error: BaseException) -> Failure:
    """The error as it is kept in a dead letter: bounded, and without passwords."""
    told = traceback.TracebackException.from_exception(error)  # it survives an error that cannot say what it is
    message = " ".join(str(told).split("\n"))
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    trace = "".join(told.format())
    return Failure(hide_password(line)[:_ERROR_LIMIT], hide_password(trace)[-_TRACEBACK_LIMIT:])


def _judge_one(error: BaseException, policy: RetryPolicy, attempt: int) -> Outcome:
    match error:
        case GivenBack():
            return Release()
        case Unavailable():
            return Snooze(UNAVAILABLE_SNOOZE)
        case SnoozeFor():
            return Snooze(error.delay)
        case Reject():
            return Dead(failure_of(error), attempts=attempt)
        case RetryLater():
            wait = None if policy.delay_after(attempt) is None else error.delay
        case _:
            wait = policy.delay_after(attempt, error)
    failure = failure_of(error)
    return Dead(failure, attempts=attempt) if wait is None else Retry(wait, failure)


def _severity(outcome: Outcome) -> tuple[int, float]:
    match outcome:
        case Dead():
            return 3, 0.0
        case Retry(delay):
            return 2, delay
        case Snooze(delay):
            return 1, delay
    return 0, 0.0
