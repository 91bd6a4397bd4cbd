"""How programs of this project log: structlog to stderr, for people or as JSON lines."""

import logging
import re
import sys
from typing import Any, Literal, TextIO

import structlog

from eventbus.errors import hide_password

_SECRET = re.compile(r"password|secret|authorization|cookie|api_?key|(^|_)(token|jwt|dsn)$", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer\s+)[^\s,;'\"]+", re.IGNORECASE)
_HIDDEN = "***"


def configure(log_format: Literal["console", "json"], level: int = logging.INFO) -> None:
    """Set up logging for a whole process; libraries that import the bus are left to do it their own way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_component,
        structlog.processors.format_exc_info,
        _hide_secrets,
    ]
    if log_format == "json":
        # JSON escapes control characters: one event stays one line, whatever a field holds.
        end: structlog.typing.Processor = structlog.processors.JSONRenderer(ensure_ascii=True)
    else:
        # The default shows the locals of every frame: tokens, passwords, payloads.
        plain = structlog.dev.plain_traceback
        end = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[*shared, end],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Named(names[0] if names else "app", sys.stderr),
        cache_logger_on_first_use=True,
    )


class _Named(structlog.WriteLogger):
    """Knows what `structlog.get_logger(name)` called it. A line and its end are one write: several processes may share
    a file, and `print` would let another one's line in between."""

    def __init__(self, name: str, file: TextIO) -> None:
        super().__init__(file)
        self.name = name


def _add_component(logger: _Named, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    line.setdefault("component", logger.name)
    return line


def _hide_secrets(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Passwords of URLs and bearer tokens, wherever they stand; and whatever is called a secret."""
    return {name: _HIDDEN if _SECRET.search(name) else _hidden(value) for name, value in line.items()}


def _hidden(value: Any) -> Any:  # what a log line holds is anything
    return _BEARER.sub(rf"\1{_HIDDEN}", hide_password(value)) if isinstance(value, str) else value
