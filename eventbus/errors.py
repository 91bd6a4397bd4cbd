"""Everything that the bus raises.

EventBusError
├── ConfigurationError      the program or its environment asks for what cannot work
├── Unavailable             Redis or PostgreSQL is away, or did not answer in time: the same call may succeed later
│   └── PoolExhausted       all connections of this process to PostgreSQL are in use
├── SessionEnded            PostgreSQL ended the session of a transaction because of what was done in it
├── Full                    Redis refuses writes because its memory is used up
├── Conflict                PostgreSQL rolled a transaction back in favour of another: run again, it may succeed
│   └── WrongVersion        an aggregate has had events meanwhile that its writer has not seen
├── MissingEvents           an aggregate cannot be rebuilt: some of its events are gone
├── SessionRefused          a session refuses what was asked of it, and nothing has changed
│   ├── NoSuchSession       the session never existed, is gone, or belongs to another organization
│   ├── WrongState          the session's state does not allow it
│   └── SessionFull         the session would hold too many events, or too many bytes
├── TaskFailed              a task that its process cannot do without ends again and again
├── CodecError              an envelope cannot be read or written, or its data does not fit the event's type
│   ├── UnknownEventType    no class with this type is imported in this process
│   ├── WrongType           an argument is of a type that it cannot have; a TypeError as well
│   └── WrongValue          an argument has a value that it cannot have; a ValueError as well
└── verdicts, for handlers to raise
    ├── RetryLater          try again after a delay of the handler's choosing; spends an attempt
    ├── SnoozeFor           not now: run again after a delay, as if this had been no attempt
    └── Reject              never try again: straight to the dead letters
        └── Cancelled       the event was aborted from outside; handlers do not raise this
"""

import re

LONGEST_DELAY = 365 * 86_400.0  # seconds that an event may rest between two attempts
_PAGES = ("http", "https")  # whose paths may hold an '@'
_PORT = re.compile(r"[0-9]{1,5}/")
_WORD = re.compile(r"\S+")
_OPTION = re.compile(r"([?&]\w*password=)[^&\s]+", re.IGNORECASE)


class EventBusError(Exception):
    """Root of the tree."""


class ConfigurationError(EventBusError):
    """The program or its environment asks for something that cannot work; the message says what to change."""


class Unavailable(EventBusError):
    """A server is away or did not answer in time.

    What was sent may or may not have been applied. A handler that lets this pass spends no attempt:
    its delivery is put off until the server is back.

    `lost`: the session broke in the middle of a transaction. That may be the doing of what ran in it: see
    eventbus.consuming.lost_sessions.
    """

    def __init__(self, server: str, detail: str, *, lost: bool = False) -> None:
        super().__init__(f"{server} is unavailable: {detail}")
        self.server = server
        self.detail = detail
        self.lost = lost


class PoolExhausted(Unavailable):
    """No connection to PostgreSQL became free in time: all that this process may have are in use. The server is
    well."""

    def __init__(self, server: str, detail: str) -> None:
        super().__init__(server, detail)
        self.args = (detail,)


class SessionEnded(EventBusError):
    """PostgreSQL ended a session because of what was done in it: it stood idle in its transaction for longer than
    `idle_in_transaction_session_timeout` allows, or a statement ends the server's process each time it is run."""


class Full(EventBusError):
    """Redis is at maxmemory and refuses writes. Nothing was stored; consumers can still drain."""


class Conflict(EventBusError):
    """PostgreSQL rolled a transaction back because it collided with another one: a serialization failure or a deadlock.
    None of its effects remain. A handler that does not catch this is run again from its beginning, a few times, before
    the attempt counts as failed."""


class WrongVersion(Conflict):
    """An aggregate is not at the version that its writer has seen. Nothing was appended: load the aggregate again."""

    def __init__(self, aggregate: str, expected: int, actual: int) -> None:
        super().__init__(f"{aggregate} is at version {actual}, and {expected} was expected: load it again")
        self.expected = expected
        self.actual = actual


class MissingEvents(EventBusError):
    """Some of an aggregate's events are gone, and no snapshot covers them. The aggregate's state is unknown."""

    def __init__(self, aggregate: str, first: int, last: int) -> None:
        super().__init__(f"{aggregate} cannot be rebuilt: of its events up to {last}, number {first} is missing")


class SessionRefused(EventBusError):
    """A session refuses what was asked of it; nothing has changed."""


class NoSuchSession(SessionRefused):
    """The session never existed, exists no more, or belongs to another organization."""

    def __init__(self) -> None:
        super().__init__("there is no such session")


class WrongState(SessionRefused):
    """The session's state does not allow what was asked of it. `status`: the state that it is in."""

    def __init__(self, status: str) -> None:
        super().__init__(f"the session is {status}")
        self.status = status


class SessionFull(SessionRefused):
    """The session would hold more events, or more bytes of JSON, than a session may."""

    def __init__(self) -> None:
        super().__init__("the session would be too large: commit it, and start another one for the rest")


class TaskFailed(EventBusError):
    """A background task that its process cannot do without has ended again and again without raising an error: it
    returned, or was cancelled from inside. The process ends, too: another one may do better, and otherwise nobody would
    notice."""

    def __init__(self, name: str, times: int, reason: str) -> None:
        super().__init__(f"{name} ended {times} times in a row, the last time by {reason}: this process ends with it")


class CodecError(EventBusError):
    """An envelope cannot be decoded or published, or its data does not fit the event's type."""


class UnknownEventType(CodecError):
    """No class with this type is imported in this process."""


class WrongType(CodecError, TypeError):
    """An argument of a publish is of a type that it cannot have; nothing was stored."""


class WrongValue(CodecError, ValueError):
    """An argument of a publish has a value that it cannot have; nothing was stored."""


class RetryLater(EventBusError):
    """Raised by a handler: try again `delay` seconds from now instead of the group's backoff. Spends an attempt.

    Raises ValueError if the delay is below 0, or more than a year (LONGEST_DELAY)."""

    def __init__(self, delay: float, reason: str = "") -> None:
        _check_delay("RetryLater", delay)
        super().__init__(reason or f"the handler asked to be tried again in {delay:g} s")
        self.delay = delay


class SnoozeFor(EventBusError):
    """Raised by a handler: not now, run again `delay` seconds from now. Spends no attempt.

    Nothing bounds how often: a handler that has waited long enough raises something else. Each snooze is a line of the
    log, with the event's age, and listeners are told of it. Raises ValueError as RetryLater does.
    """

    def __init__(self, delay: float, reason: str = "") -> None:
        _check_delay("SnoozeFor", delay)
        super().__init__(reason or f"the handler asked to be run again in {delay:g} s")
        self.delay = delay
        self.reason = reason


class Reject(EventBusError):
    """Raised by a handler: this event must not be tried again. It becomes a dead letter with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cancelled(Reject):
    """The handler was stopped, or did not begin, because somebody called `bus.events.abort`."""


def _check_delay(verdict: str, delay: float) -> None:
    if not 0 <= delay <= LONGEST_DELAY:
        raise ValueError(
            f"{verdict}({delay}): the delay must be seconds from now, a year ({LONGEST_DELAY:.0f}) at most"
        )


def described(error: BaseException) -> str:
    """The error's repr, or the name of its class if the repr raises."""
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - the repr of an exception is code of others
        return type(error).__qualname__


def hide_password(text: str) -> str:
    """The text as it may be shown: each password of a URL in it is replaced by `***`. A password may hold any character
    but white space: in doubt, more of the text is hidden than would have to be."""
    if "://" in text:
        text = _WORD.sub(lambda word: hide_login(word[0]), text)
    return _OPTION.sub(r"\1***", text) if "assword=" in text else text


def hide_login(url: str) -> str:
    """A URL, or a word with one in it, without its password: all from the first ':' to the last '@'."""
    scheme, separator, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user, colon, password = login.partition(":")
    if not (at and colon) or (_PORT.match(password) and scheme.endswith(_PAGES)):
        return url
    cut = "password=" in password  # its value holds the '@', and ends behind it
    return f"{scheme}{separator}{user}:***" + ("" if cut else f"@{place}")
