"""Open files. Each connection is one, and a shell may allow a process 1,024 of them or fewer."""

import errno
import os
import time
from contextlib import suppress

from eventbus.process.safe_logging import get_logger

OPEN_FILES = 65_536  # enough for all sockets of a gateway, and for a worker of many streams, which reads each by itself
AGAIN = 60.0  # seconds until the log is told again: every connection that cannot be opened finds the same
# The words of ENFILE begin with those of EMFILE.
_TOO_MANY = [(number, os.strerror(number)) for number in (errno.ENFILE, errno.EMFILE)]

log = get_logger("eventbus.process")
_told_at = -AGAIN


def allow_files() -> None:
    """Raise the limit of open files to OPEN_FILES, or as near to it as this process may without privileges."""
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems allow less than the limit that they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def exhausted(error: BaseException) -> str | None:
    """For an error that comes from too many open files, which no server is to blame for: what to do, and a line in the
    log, once a minute. None for any other error. Drivers wrap errors and keep the text alone."""
    found = (number for number, words in _TOO_MANY if getattr(error, "errno", None) == number or words in str(error))
    number = next(found, None)
    if number is None:
        return None
    reason = _own_limit() if number == errno.EMFILE else "this machine has all files open that it may (fs.file-max)"
    global _told_at  # noqa: PLW0603 - of the process, as its files are
    if time.monotonic() - _told_at >= AGAIN:
        _told_at = time.monotonic()
        log.error("no connection can be opened: too many open files", reason=reason)
    return reason


def _own_limit() -> str:
    import resource  # noqa: PLC0415 - not on every system, but on those with this error

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process has all {soft} files open that it may (RLIMIT_NOFILE, {hard} at the most): "
        "raise LimitNOFILE= of its unit or `ulimit -n`, or run fewer streams and groups in one process"
    )
