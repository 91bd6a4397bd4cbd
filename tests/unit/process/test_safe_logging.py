"""Telling never raises and decides nothing, whoever's logging it is; and no field has a name that logging refuses."""

import ast
import inspect
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

import pytest
import structlog

from eventbus.consuming.heartbeat import Lifeline
from eventbus.contract.delivery import Delivery, Subscription
from eventbus.process import logs
from eventbus.process.safe_logging import get_logger, lost_lines

ROOT = Path(__file__).parents[3]
PACKAGES = ("eventbus", "gateway", "handlers", "consumers")
OURS_TOO = {"exc_info", "stack_info"}  # structlog takes them out
RESERVED = {*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName", "event"}
RESERVED -= OURS_TOO
METHODS = {"debug", "info", "warning", "warn", "error", "critical", "exception", "log", "bind", "get_logger"}
BINDERS = {"bind_contextvars", "bound_contextvars"}


@pytest.fixture(autouse=True)
def configuration() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def raising(*_: object) -> Any:
    raise RuntimeError("a fault of others")


def full_disk() -> TextIO:
    return Path("/dev/full").open("w", encoding="utf-8")


def closed() -> TextIO:
    file = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    file.close()
    return file


def not_there() -> None:
    return


def reader_gone() -> TextIO:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


def reader_slow() -> TextIO:
    """A pipe that is full, and that somebody has made non-blocking."""
    _, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(65_536))
    return os.fdopen(writing, "w")


@contextmanager
def stderr(file: TextIO | None) -> Iterator[None]:
    before = sys.stderr
    sys.stderr = file  # None: the process was started without
    try:
        yield
    finally:
        sys.stderr = before
        if file is not None:
            file.close()


def others_processor() -> None:
    structlog.configure(processors=[raising], cache_logger_on_first_use=False)


def others_factory() -> None:
    structlog.configure(logger_factory=raising, cache_logger_on_first_use=False)


def others_handler() -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raising(record)

    logger = logging.Logger("others")  # noqa: LOG001 - not in the tree of loggers, on purpose
    logger.addHandler(Raising())
    into_logging(logger)


def into_logging(logger: logging.Logger) -> None:
    structlog.configure(
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )


async def tell_all() -> int:
    """How many of the lines were lost. All levels, all ways to bind."""
    before = lost_lines()
    log = get_logger("test", group="shop")
    bound = log.bind(a=1).new(b=2).try_unbind("b").unbind("not there")
    for each in (log, bound):
        each.info("told")
        each.error("told", password="hidden")
        each.exception("told", exc_info=ValueError("x"))
        await each.awarning("told")
    return lost_lines() - before


@pytest.mark.parametrize("file", [full_disk, closed, not_there, reader_gone, reader_slow])
@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_a_log_that_cannot_be_written_raises_nothing(
    file: Callable[[], TextIO | None], log_format: Literal["json", "console"]
) -> None:
    with stderr(file()):
        logs.configure(log_format)
        assert await tell_all() >= 8


@pytest.mark.parametrize("others", [others_processor, others_factory, others_handler])
async def test_nor_does_the_logging_of_others(others: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    others()
    assert await tell_all() >= 6
    told = capfd.readouterr().err
    assert "event='told'" in told
    assert "a fault of others" in told
    assert "hidden" not in told


def test_a_line_of_a_handler_that_logging_refuses_is_told_plainly(capfd: pytest.CaptureFixture[str]) -> None:
    into_logging(logging.Logger("plain"))  # noqa: LOG001 - as above
    before = lost_lines()
    get_logger("test").bind(order=7).warning("told", name="refused", token="geheim", url="redis://:geheim@h")
    assert lost_lines() == before + 1
    [line] = capfd.readouterr().err.splitlines()
    assert all(part in line for part in ("event='told'", "order='7'", "name='refused'", "KeyError"))
    assert "geheim" not in line


def test_nothing_of_a_line_that_a_full_disk_refused_stays() -> None:
    """It would be written again at the end of the process, which then ends with 120."""
    with stderr(full_disk()):
        logs.configure("json")
        get_logger("test").info("told")
        sys.stderr.flush()


def test_a_caller_is_still_found(capfd: pytest.CaptureFixture[str]) -> None:
    adder = structlog.processors.CallsiteParameterAdder([structlog.processors.CallsiteParameter.FUNC_NAME])
    structlog.configure(processors=[adder, structlog.processors.JSONRenderer()], cache_logger_on_first_use=False)
    get_logger("test").info("told")
    assert '"func_name": "test_a_caller_is_still_found"' in capfd.readouterr().out


def test_a_logger_is_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()], cache_logger_on_first_use=False)
    log = get_logger("test", a=1).bind(b=2)
    log.info("told %s", "well", c=3)
    assert json.loads(capfd.readouterr().out) == {"a": 1, "b": 2, "c": 3, "event": "told well"}
    assert dict(log._context) == {"a": 1, "b": 2}


# Names of fields ------------------------------------------------------------------------------------------------------


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def logs_with(call: ast.Call) -> bool:
    """Whether it is a call of a logger, as this project writes them: `log.…`, `said.…`, `ctx.log.…`, `write(…)`."""
    match call.func:
        case ast.Name(name):
            return name in BINDERS | {"get_logger", "write"}
        case ast.Attribute(owner, method):
            named = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            return method in BINDERS or (method in METHODS and (named in {"log", "said"} or method == "bind"))
    return False


def names_in(call: ast.Call, tree: ast.Module) -> tuple[set[str], set[str]]:
    """Of its fields; and what is unpacked into it, if that is no dictionary written down in the same module."""
    names, others = set(), set()
    for keyword in call.keywords:
        if keyword.arg is not None:
            names.add(keyword.arg)
        elif isinstance(keyword.value, ast.Dict):
            names |= keys_in(keyword.value)
        elif isinstance(keyword.value, ast.Name) and (keys := keys_of(keyword.value.id, tree)):
            names |= keys
        else:
            others.add(ast.unparse(keyword.value).rpartition(".")[2])
    return names, others


def keys_of(name: str, tree: ast.Module) -> set[str]:
    given = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    return {
        key
        for node in given
        if any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
        for key in keys_in(node)
    }


def keys_in(tree: ast.AST) -> set[str]:
    """The texts in it that are keys of dictionaries."""
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    return {str(key.value) for key in keys if isinstance(key, ast.Constant)}


def test_no_field_has_a_name_that_logging_keeps_for_itself() -> None:
    found, calls, unpacked = [], 0, set()
    for path, tree in sources():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and logs_with(node)):
            calls += 1
            names, others = names_in(call, tree)
            unpacked |= others
            found += [f"{path.relative_to(ROOT)}:{call.lineno} {name}" for name in names & RESERVED]
    assert found == []
    assert calls > 90, "the search has lost sight of the calls"
    # These are looked at by themselves.
    assert unpacked == {"named()", "suspects", "fields"}
    delivery = Delivery(Subscription("order", "shop", "me", 30.0, 3), "1-0", {})
    assert not RESERVED & delivery.named().keys()
    assert not RESERVED & keys_in(ast.parse(inspect.getsource(Lifeline._suspects).lstrip()))


def test_all_loggers_are_such() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"get_logger", "getLogger"}
        and ast.unparse(node.value) in {"structlog", "structlog.stdlib", "logging"}
        and path.name not in {"logs.py", "safe_logging.py", "server_log.py"}
    ]
    assert found == []
