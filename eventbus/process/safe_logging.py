"""Loggers whose methods never raise: what becomes of an event must not depend on who can be told of it.

A log cannot be written when stderr is closed, the disk is full or the reader of a pipe has gone. Where logging is the
host program's, its processors and handlers may raise whatever they like. A line that is lost is counted, which the
metric eventbus_log_lines_lost_total shows, and tried once more in a plain way: as text, to stderr.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any, cast

import structlog

from eventbus.errors import described
from eventbus.process.logs import hide_secrets, write

_LEVELS = ("debug", "info", "warning", "warn", "error", "critical", "fatal", "exception", "msg", "log")


class _Lost:
    """How many lines this process has lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lines = 0

    def count(self) -> None:
        with self._lock:
            self.lines += 1


_lost = _Lost()


def get_logger(name: str, **fields: object) -> structlog.stdlib.BoundLogger:
    """As structlog.get_logger(name), configured by the program that runs; see above. `fields` are bound to it."""
    logger = _Guarded(name, structlog.get_logger(name), {})
    return cast(structlog.stdlib.BoundLogger, logger.bind(**fields) if fields else logger)


def lost_lines() -> int:
    """How many lines this process could not write as they should be. May be asked from any thread."""
    return _lost.lines


class _Guarded:
    """Wraps a logger of structlog. Its levels are added below; whatever else the logger has is passed on as it is."""

    __slots__ = ("_fields", "_logger", "_name")

    def __init__(self, name: str, logger: Any, fields: Mapping[str, object]) -> None:  # loggers are of any class
        self._name = name
        self._logger = logger
        self._fields = fields

    def __getattr__(self, name: str) -> object:
        return getattr(self._logger, name)

    def bind(self, **fields: object) -> "_Guarded":
        return self._bound("bind", {**self._fields, **fields}, **fields)

    def new(self, **fields: object) -> "_Guarded":
        return self._bound("new", fields, **fields)

    def unbind(self, *names: str) -> "_Guarded":
        return self._bound("unbind", _without(self._fields, names), *names)

    def try_unbind(self, *names: str) -> "_Guarded":
        return self._bound("try_unbind", _without(self._fields, names), *names)

    def _bound(self, how: str, bound: Mapping[str, object], *names: str, **fields: object) -> "_Guarded":
        logger = self._logger
        try:
            logger = getattr(logger, how)(*names, **fields)
        except Exception as error:  # noqa: BLE001 - see above
            _lose(self._name, how, (), bound, error)
        return _Guarded(self._name, logger, bound)


def _without(fields: Mapping[str, object], names: tuple[str, ...]) -> Mapping[str, object]:
    return {name: value for name, value in fields.items() if name not in names}


def _lose(name: str, level: str, args: tuple[object, ...], fields: Mapping[str, object], error: Exception) -> None:
    _lost.count()
    with suppress(Exception):  # there is nothing left to tell it with
        shown = _shown({"event": " ".join(map(str, args)), **fields, "not_logged": described(error)})
        write(sys.stderr, f"{level} {name} " + " ".join(f"{key}={value!r}" for key, value in shown.items()))


def _shown(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Without secrets, and without values that cannot say what they are."""
    shown: dict[str, object] = {}
    for key, value in fields.items():
        with suppress(Exception):
            shown[key] = str(value)
    return hide_secrets(None, "", shown)


def _level(name: str) -> Callable[..., object]:
    def tell(self: _Guarded, *args: object, **fields: object) -> object:
        try:
            return getattr(self._logger, name)(*args, **fields)
        except Exception as error:  # noqa: BLE001 - see above
            _lose(self._name, name, args, {**self._fields, **fields}, error)
            return None

    return tell


def _async_level(name: str) -> Callable[..., object]:
    async def tell(self: _Guarded, *args: object, **fields: object) -> object:
        try:
            return await getattr(self._logger, name)(*args, **fields)
        except Exception as error:  # noqa: BLE001 - see above
            _lose(self._name, name, args, {**self._fields, **fields}, error)
            return None

    return tell


def _passed_over(method: Callable[..., object]) -> Callable[..., object]:
    """The method, as if it were one of structlog's. Where a line comes from is found by the first frame outside of
    modules called structlog: that must be the frame of whoever logs."""
    assert isinstance(method, FunctionType)
    seen = {**globals(), "__name__": "structlog.guarded"}
    return FunctionType(method.__code__, seen, method.__name__, None, method.__closure__)


for _name in _LEVELS:
    setattr(_Guarded, _name, _passed_over(_level(_name)))
    setattr(_Guarded, f"a{_name}", _passed_over(_async_level(f"a{_name}")))
