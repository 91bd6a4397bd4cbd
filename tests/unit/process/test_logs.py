"""Lines of the log: one each, with who says what about which event, and no secrets."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
import structlog

from eventbus import Context, EventBus, Group, RetryPolicy
from eventbus.consuming.executor import Executor
from eventbus.contract.codec import encode, pairs
from eventbus.contract.delivery import Delivery
from eventbus.event import Envelope, Event
from eventbus.process import logs
from tests.samples import consumer, envelope

Written = Callable[..., str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What a program that has configured its logs so writes to stderr."""
    before, handlers = structlog.get_config(), logging.root.handlers[:]

    def write(act: Callable[[Any], object], log_format: Literal["console", "json"] = "json") -> str:
        logs.configure(log_format)
        act(structlog.get_logger("eventbus.executor"))
        return capsys.readouterr().err

    yield write
    structlog.configure(**before)
    logging.root.handlers[:] = handlers


def fail(log: Any) -> None:
    try:
        int("redis://:hunter2@host")
    except ValueError:
        log.exception("x")


def test_a_line_says_which_component_wrote_it(written: Written) -> None:
    assert json.loads(written(lambda log: log.info("hello")))["component"] == "eventbus.executor"
    assert json.loads(written(lambda _: structlog.get_logger().info("hello")))["component"] == "app"
    assert "component=eventbus.executor" in written(lambda log: log.info("hello"), "console")


@pytest.mark.parametrize("character", ["\n", "\r\n", "\x00", "\x1b[31m", "\x85", "\u2028", "\u202e", "\x7f"])
def test_control_characters_in_any_field_stay_in_one_line_of_ascii(written: Written, character: str) -> None:
    text = f"a{character}b"
    raw = written(lambda log: log.warning(text, group=text, **{text: text}))
    assert raw.isascii()
    assert len(raw.splitlines()) == 1
    told = json.loads(raw)
    assert (told["event"], told["group"], told[text]) == (text, text, text)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "act",
    [
        lambda log: log.info("x", server="redis://ann:hunter2@host"),
        lambda log: log.info("postgresql://ann:hunter2@host/app is away"),
        lambda log: log.info("x", password="hunter2", jwt_secret="hunter2", access_token="hunter2"),
        lambda log: log.info("x", Authorization="hunter2", Cookie="hunter2"),
        lambda log: log.info("x", header="Bearer hunter2"),
        fail,
        lambda log: log.error("x", exc_info=ValueError("redis://:hunter2@host")),
    ],
)
def test_passwords_and_tokens_are_hidden_wherever_they_stand(
    written: Written, act: Callable[[Any], object], log_format: Literal["console", "json"]
) -> None:
    text = written(act, log_format)
    assert "hunter2" not in text
    assert "***" in text


def test_what_only_sounds_like_a_secret_is_shown(written: Written) -> None:
    told = json.loads(written(lambda log: log.info("x", tokens=3, key="lead-1", reason="token refused")))
    assert (told["tokens"], told["key"], told["reason"]) == (3, "lead-1", "token refused")


class Noisy(Event, type="noise.made"):
    """Its handler fails."""


@pytest.fixture
def group() -> Group:
    group = Group("ears", retry=RetryPolicy(attempts=2))

    @group.on(Noisy)
    async def hear(event: Noisy, ctx: Context) -> None:
        ctx.log.info("heard")
        raise ValueError("too loud")

    return group


def delivered(sent: Envelope, *, failures: int = 0, crashes: int = 0) -> Delivery:
    fields = pairs([part if isinstance(part, bytes) else part.encode() for part in encode(sent)])
    return Delivery(consumer(stream="noise", group="ears"), "7-0", fields, failures, crashes)


@pytest.mark.parametrize(
    ("sent", "state", "says"),
    [
        ({"type": "noise.made", "data": b"{}"}, {}, ["heard", "failed, will retry"]),
        ({"type": "noise.made", "data": b"{}"}, {"failures": 1}, ["heard", "dead letter"]),
        ({"type": "noise.made", "data": b"[]"}, {}, ["dead letter"]),
        ({"type": "noise.unheard_of"}, {}, ["dead letter"]),
        ({"type": "noise.made", "data": b"{}"}, {"crashes": 9}, ["dead letter"]),
    ],
    ids=["retry", "dead", "invalid", "unknown", "crashes"],
)
async def test_every_line_about_an_event_names_it(
    group: Group, sent: dict[str, Any], state: dict[str, int], says: list[str]
) -> None:
    whole = envelope(correlation_id="c-1")._replace(**sent)
    with structlog.testing.capture_logs() as lines:
        await Executor(group, EventBus("memory://")).execute(delivered(whole, **state))
    assert [line["event"] for line in lines] == says
    for told in lines:
        assert told["event_id"] == whole.id
        assert (told["group"], told["entry_id"], told["correlation_id"]) == ("ears", "7-0", "c-1")
        assert told["attempt"] == state.get("failures", 0) + 1
        assert told["event_type"] == whole.type


def test_what_can_not_be_decoded_is_named_as_far_as_it_can_be() -> None:
    named = Delivery(consumer(), "7-0", {b"id": b"\xff\n", b"data": b""}).named()
    assert named == {"group": "billing", "stream": "order", "entry_id": "7-0", "attempt": 1, "event_id": "\\xff\n"}


def test_a_line_and_its_end_are_one_write() -> None:
    """Workers under a supervisor share a file: what is written in two parts gets another one's line in between."""
    writes: list[str] = []

    class File(io.StringIO):
        def write(self, text: str, /) -> int:
            writes.append(text)
            return len(text)

    logs._Named("app", File()).info("a line")
    assert writes == ["a line\n"]


def test_a_line_has_a_time_that_can_be_read(written: Written) -> None:
    before = datetime.now(UTC)
    told = [json.loads(line)["timestamp"] for line in written(lambda log: [log.info("x"), log.info("y")]).splitlines()]
    after = datetime.now(UTC)
    assert all(text.endswith("Z") and len(text) == 27 for text in told)
    assert before <= datetime.fromisoformat(told[0]) <= datetime.fromisoformat(told[1]) <= after


def test_a_bearer_is_hidden_however_it_is_written(written: Written) -> None:
    raw = written(lambda log: log.info("x", header="bEaReR abc.def", other="BEARER ghi", none="forbearer"))
    told = json.loads(raw)
    assert (told["header"], told["other"], told["none"]) == ("bEaReR ***", "BEARER ***", "forbearer")


@pytest.mark.parametrize("value", [2**70, {1: "x"}, {"a": object()}, (1, 2), b"\xff", "\ud800", 1e400])
def test_whatever_a_field_holds_is_one_line_of_json(written: Written, value: object) -> None:
    raw = written(lambda log: log.info("x", field=value))
    assert raw.isascii()
    assert json.loads(raw)["event"] == "x"


def test_a_field_that_held_no_secret_before_is_looked_at_again(written: Written) -> None:
    def act(log: Any) -> None:
        log.info("x", reason="nothing", place="here")
        log.info("x", reason="Bearer abc.def", place="redis://:hunter2@host")
        log.info("x", reason="nothing", password="hunter2")
        log.info("Bearer abc.def")

    raw = written(act)
    assert "hunter2" not in raw
    assert "abc.def" not in raw
    assert raw.count("***") == 4


@pytest.mark.parametrize(
    ("method", "level"), [("warn", "warning"), ("warning", "warning"), ("exception", "error"), ("critical", "critical")]
)
def test_a_line_says_its_level_whatever_the_method_is_called(written: Written, method: str, level: str) -> None:
    assert json.loads(written(lambda log: getattr(log, method)("x")))["level"] == level


def test_a_line_says_what_is_bound_to_its_context_unless_it_says_so_itself(written: Written) -> None:
    with structlog.contextvars.bound_contextvars(lead="one"):
        raw = written(lambda log: (log.info("x"), log.info("x", lead="two")))
    assert [json.loads(line)["lead"] for line in raw.splitlines()] == ["one", "two"]


def test_what_other_libraries_have_to_say_comes_in_the_same_form(written: Written) -> None:
    def say(_log: object) -> None:
        logging.getLogger("asyncio").warning("%s at redis://:hunter2@host", "slow")
        logging.getLogger("asyncio").info("of no interest")
        try:
            int("x")
        except ValueError:
            logging.getLogger("elsewhere").exception("failed")

    slow, failed = map(json.loads, written(say).splitlines())
    shown = {name: slow[name] for name in ("event", "level", "component")}
    assert shown == {"event": "slow at redis://:***@host", "level": "warning", "component": "asyncio"}
    assert (failed["event"], failed["level"], failed["component"]) == ("failed", "error", "elsewhere")
    assert "ValueError: invalid literal" in failed["exception"]


def test_a_line_of_another_library_that_does_not_fit_its_arguments_is_told_and_raises_nothing(written: Written) -> None:
    record = logging.LogRecord("elsewhere", logging.ERROR, __file__, 1, "%d", ("three",), None)
    assert "three" in written(lambda _log: logging.root.handlers[-1].handle(record))


def test_lines_of_other_libraries_come_once_however_often_logs_are_configured(written: Written) -> None:
    written(lambda _log: None)
    assert len(written(lambda _log: logging.getLogger("asyncio").warning("slow")).splitlines()) == 1
