"""How programs of this project log: structlog to stderr, for people or as JSON lines."""

import io
import json
import logging
import os
import re
import select
import sys
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns
from typing import Literal, TextIO

import orjson
import structlog

from eventbus.errors import hide_password

_SECRET = re.compile(r"password|secret|authorization|cookie|api_?key|(^|_)(token|jwt|dsn)$", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[^\s,;'\"]+", re.IGNORECASE)
_HIDDEN = "***"
_LEVELS = {"warn": "warning", "exception": "error"}  # methods that are no level
_harmless: set[str] = set()  # names of fields that were seen and are no secrets
HARMLESS_LIMIT = 1_024
ROOM_PATIENCE_MS = 100


def configure(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up logging for a whole process; libraries that import the bus are left to do it their own way. Libraries that
    use Python's own logging, asyncio and asyncpg among them, come out in the same form, from warnings on."""
    if log_format == "json":
        ends: list[structlog.typing.Processor] = [_render]
    else:
        # The default shows the locals of every frame: tokens, passwords, payloads.
        plain = structlog.dev.plain_traceback
        ends = [
            hide_secrets,
            structlog.dev.ConsoleRenderer(colors=_is_terminal(sys.stderr), exception_formatter=plain),
        ]
    structlog.configure(
        processors=[_complete, *ends],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Named(names[0] if names else "app", sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Foreign)]
    root.addHandler(_Foreign(max(level, logging.WARNING)))


class _Foreign(logging.Handler):
    """A line of another library's: left to itself, Python would write its bare text between ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - as logging's own handlers
            self.handleError(record)


class _Named:
    """Where lines end up. Knows what `get_logger(name)` called it."""

    def __init__(self, name: str, file: TextIO | None) -> None:
        self.name = name
        self._file = file

    def msg(self, line: str) -> None:
        write(self._file, line)

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


def write(file: TextIO | None, line: str) -> None:
    """A line and its end in one write: several processes may share a file, and `print` would let another one's line in
    between. Past the file's buffer: a line that a full disk has refused would stay in it, be refused again with each
    line that follows, and at last make the process end with an error.

    Raises OSError or ValueError if it cannot be written. Waits only for the rest of a line that has begun."""
    if file is None:
        raise ValueError("this process was started without stderr")
    try:
        descriptor = file.fileno()
    except io.UnsupportedOperation:  # it is in memory
        file.write(f"{line}\n")
        file.flush()
        return
    packed = f"{line}\n".encode(errors="backslashreplace")
    left = memoryview(packed)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # somebody has made the pipe non-blocking, and its reader is slow
            if len(left) == len(packed) or not _has_room(descriptor):
                raise


def _has_room(descriptor: int) -> bool:
    """Whether there is room soon."""
    polling = select.poll()
    polling.register(descriptor, select.POLLOUT)
    return bool(polling.poll(ROOM_PATIENCE_MS))


def _is_terminal(file: TextIO | None) -> bool:
    """A process may be started without stderr, and a program may have closed it."""
    return file is not None and not file.closed and file.isatty()


def _complete(logger: _Named, method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Adds what every line has beside its own fields. One processor for all takes half the time of one for each."""
    line = structlog.contextvars.merge_contextvars(logger, method, line)
    line["level"] = _LEVELS.get(method, method)
    # RFC 3339, in UTC: the seconds are the same for many lines.
    seconds, micros = divmod(time_ns() // 1_000, 1_000_000)
    line["timestamp"] = f"{_second(seconds)}.{micros:06d}Z"
    line.setdefault("component", logger.name)
    return structlog.processors.format_exc_info(logger, method, line) if "exc_info" in line else line


@lru_cache(1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def hide_secrets(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Hides passwords of URLs and bearer tokens, wherever they stand, and fields whose name tells of a secret."""
    for name, value in line.items():
        if _is_secret(name):
            line[name] = _HIDDEN
        elif isinstance(value, str):
            line[name] = _hidden(value)
    return line


@lru_cache(1024)
def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None


def _hidden(text: str) -> str:
    """Most lines hold neither: what every password and token has beside it is looked for first, which is cheap."""
    if "://" in text or "password=" in text:
        text = hide_password(text)
    if "bearer" in text.lower():
        text = _BEARER.sub(rf"\1{_HIDDEN}", text)
    return text


def _render(logger: _Named, method: str, line: structlog.typing.EventDict) -> str:
    """As JSON, which escapes control characters: one event stays one line, whatever a field holds. Without secrets: the
    finished line is looked through once, which is cheaper than each of its fields, and few lines are suspicious."""
    text = _to_json(line)
    if not _harmless.issuperset(line) or "://" in text or "password=" in text or "bearer" in text.lower():
        text = _to_json(dict(hide_secrets(logger, method, line)))
        if len(_harmless) < HARMLESS_LIMIT:
            _harmless.update(name for name in line if not _is_secret(name))
    return text


def _to_json(line: structlog.typing.EventDict) -> str:
    """In ASCII. For nearly every line orjson can do that; for others json does, which takes ten times as long."""
    try:
        packed = orjson.dumps(line, default=repr)
    except orjson.JSONEncodeError:
        packed = b"\xff"
    return packed.decode() if packed.isascii() else json.dumps(line, default=repr)
