"""From what a handler raised to what becomes of its event. Knows no handler and no transport.

A verdict says by itself what becomes of the event; for other exceptions the policy decides. In an exception group
every exception is judged, and the most severe outcome holds for the event: a dead letter, then a retry, then a snooze,
then a release; of two alike, the one that waits longer.
"""

import dataclasses
import math
import traceback
from collections.abc import Iterator

from eventbus.contract.delivery import Dead, Failure, Outcome, Release, Retry, Snooze
from eventbus.errors import Reject, RetryLater, SnoozeFor, Unavailable, described, hide_password
from eventbus.policy import RetryPolicy

UNAVAILABLE_SNOOZE = 1.0  # seconds until a handler that met a server which is away is run again
_DEFAULT = RetryPolicy()
_ERROR_LIMIT, _TRACEBACK_LIMIT = 1_000, 16_000  # characters kept in a dead letter


class GivenBack(BaseException):
    """Ends an execution that had not reached its handler when the worker stopped, or whose handler was given up: the
    event is released.

    A BaseException, so that no `except Exception` of middleware makes a failure of it."""


def judge(error: BaseException, policy: RetryPolicy, attempt: int) -> Outcome:
    """What becomes of an event whose `attempt` (from 1) ended with this error. Never raises: a verdict that does not
    say what it should, as one whose class forgets super().__init__, is an error like any other."""
    try:
        return _judge_all(error, policy, attempt)
    except Exception as unfit:  # noqa: BLE001 - see above
        failure = Failure(f"{type(error).__qualname__}, which cannot be judged: {described(unfit)}"[:_ERROR_LIMIT])
        wait = policy.delay_after(attempt)
        return Dead(failure, attempts=attempt) if wait is None else Retry(wait, failure)


def judge_unforeseen(error: BaseException, attempt: int) -> Outcome:
    """What becomes of an event whose execution broke outside of its handler, where nothing should: the default
    policy decides. Released instead, the event would run in a circle, without end and without rest."""
    return judge(error, _DEFAULT, attempt)


def _judge_all(error: BaseException, policy: RetryPolicy, attempt: int) -> Outcome:
    decisive, outcome = max(
        ((each, _judge_one(each, policy, attempt)) for each in leaves(error)), key=lambda judged: _severity(judged[1])
    )
    if isinstance(outcome, Retry | Dead) and decisive is not error:
        whole = failure_of(error)
        failure = Failure(f"{whole.error}: {outcome.failure.error}"[:_ERROR_LIMIT], whole.traceback)
        return dataclasses.replace(outcome, failure=failure)
    return outcome


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside of an exception group, however deep; for any other exception, itself."""
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
            return Snooze(_seconds(error.delay))
        case Reject():
            return Dead(failure_of(error), attempts=attempt)
        case RetryLater():
            wait = None if policy.delay_after(attempt) is None else _seconds(error.delay)
        case _:
            wait = policy.delay_after(attempt, error)
    failure = failure_of(error)
    return Dead(failure, attempts=attempt) if wait is None else Retry(wait, failure)


def _seconds(delay: float) -> float:
    """Raises TypeError or ValueError if it is no number of seconds: it may have been set after the verdict was made."""
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay={delay!r}")
    return delay


def _severity(outcome: Outcome) -> tuple[int, float]:
    match outcome:
        case Dead():
            return 3, 0.0
        case Retry(delay):
            return 2, delay
        case Snooze(delay):
            return 1, delay
    return 0, 0.0
