"""What a command prints arrives whole, or the command fails. A complaint that cannot be printed does not change its
end."""

import io
import os
import select
import sys
from contextlib import suppress

from eventbus.errors import EventBusError
from eventbus.process.loop import keep_standard_files


class Incomplete(EventBusError):
    """Not all that a command had to say could be printed."""


class Whole(io.FileIO):
    """A file whose writes are complete.

    A write to a pipe whose reader is slow may take a part: the pipe is non-blocking because somebody shares it, or the
    event loop's io_uring interrupts the write while it is being closed. Python's text files lose the rest where they
    are unbuffered (PYTHONUNBUFFERED=1, as in most containers), and the command ends as if all was well.

    Raises Incomplete.
    """

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self.fileno(), left) :]
            except BlockingIOError:
                polling = select.poll()
                polling.register(self.fileno(), select.POLLOUT)
                polling.poll()
            except BrokenPipeError:  # the reader has seen enough: the command line ends quietly
                raise
            except OSError as error:
                raise Incomplete(f"stdout cannot be written: {error.strerror}") from error
        return size


def prepare() -> None:
    """Let stdout write whole; to be called before anything is opened or printed."""
    keep_standard_files()
    told = sys.__stdout__
    if told is not None and told is sys.stdout:
        file = io.BufferedWriter(Whole(told.fileno(), "wb", closefd=False))  # type: ignore[type-var]  # it is a FileIO
        at_once = told.isatty() or bool(getattr(told, "write_through", False))
        sys.stdout = io.TextIOWrapper(file, encoding=told.encoding, errors=told.errors, line_buffering=at_once)


def finish() -> None:
    """Flush stderr and stdout. One that fails is dropped: the interpreter would try it again as it ends, and exit with
    120.

    Raises Incomplete, BrokenPipeError."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None
    told, failed = sys.stdout, True
    try:
        if told is not None:
            told.flush()
        failed = False
    finally:
        if failed:
            sys.stdout = None


def complain(line: str) -> None:
    with suppress(OSError, ValueError):  # there is nobody to tell
        print(line, file=sys.stderr)  # noqa: T201 - what would print it better may not be installed
