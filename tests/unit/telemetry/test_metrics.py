"""What is counted, under which labels, and how it is shown."""

import gc
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from eventbus import Event, EventBus
from eventbus.contract.delivery import Ack, Dead, Outcome, Release
from eventbus.contract.inspection import GroupState, StreamState
from eventbus.errors import ConfigurationError, Full
from eventbus.event import Envelope, Status, uuid7
from eventbus.telemetry import DEFINITIONS, Metrics, prometheus
from eventbus.telemetry.prometheus import register
from tests.samples import FAILED, envelope, outgoing
from tests.unit.telemetry.events import Asked, oracle
from tests.unit.telemetry.scrape import Samples, scrape
from tests.waiting import until
from tests.working import working


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventbus.consuming.consumer.READ_WAIT", 0.1)
    monkeypatch.setattr("eventbus.handling.verdict.UNAVAILABLE_SNOOZE", 0.01)


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


def finished(
    outcome: Outcome, sent: Envelope | None = None, seconds: float = 0.1
) -> tuple[str, Outcome, Envelope | None, float]:
    return ("billing", outcome, sent, seconds)


def named(samples: Samples, name: str) -> Samples:
    return {key[1:]: value for key, value in samples.items() if key[0] == name and value}


async def test_every_execution_counts_once_under_its_outcome(bus: EventBus) -> None:
    fates = ["ack"] * 3 + ["retry"] * 2 + ["dead", "snooze"]
    await bus.publish_many([Asked(fate=fate) for fate in fates])
    await bus.publish(Asked(), delay=60)
    expected = {("oracle", "ack", "question.asked"): 6, ("oracle", "dead", "question.asked"): 1}
    expected |= {("oracle", "retry", "question.asked"): 2, ("oracle", "snooze", "question.asked"): 1}
    async with working(bus, oracle()):
        await until(lambda: named(scrape(bus.metrics), "eventbus_processed_total") == expected)
        assert named(scrape(bus.metrics), "eventbus_in_process") == {}
        assert ("eventbus_in_process", "oracle") in scrape(bus.metrics)
    told = scrape(bus.metrics)
    assert named(told, "eventbus_published_total") == {("scheduled", "question"): 1, ("stored", "question"): 7}
    assert told["eventbus_handler_seconds_count", "oracle", "question.asked"] == 10
    assert told["eventbus_end_to_end_seconds_count", "oracle"] == 6
    assert ("eventbus_in_process", "oracle") not in told  # it runs nothing any more


async def test_a_publish_that_raises_counts_as_failed(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> list[Status]:
        raise Full("no memory")

    monkeypatch.setattr(bus.transport, "append", refuse)
    with pytest.raises(Full):
        await bus.publish_many([Asked(), Asked()])
    assert named(scrape(bus.metrics), "eventbus_published_total") == {("failed", "question"): 2}


def test_handlers_in_process_are_those_of_all_workers_on_the_bus() -> None:
    metrics = Metrics()
    metrics.in_process = {("a", "one"): lambda: 2, ("a", "two"): lambda: 3, ("b", "one"): lambda: 0}
    assert named(scrape(metrics), "eventbus_in_process") == {("a",): 5}


def test_types_that_nobody_here_knows_share_one_label() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.count_finished(*finished(Dead(FAILED, 0), envelope()._replace(type=f"order.{uuid7()}-{number}"), 0.0))
    metrics.count_finished(*finished(Dead(FAILED, 0), None, 0.0))
    assert named(scrape(metrics), "eventbus_processed_total") == {("billing", "dead", "unknown"): 1001}
    assert len(metrics.executions) == 1
    assert metrics.executions["billing", "unknown"].seconds.counts == [0] * 16  # nothing ran


def test_a_type_is_known_as_soon_as_its_class_is() -> None:
    metrics = Metrics()
    late = envelope()._replace(type="late.comer")
    metrics.count_finished(*finished(Dead(FAILED, 0), late))

    class Late(Event, type="late.comer"):
        pass

    metrics.count_finished(*finished(Ack(), late))
    assert set(named(scrape(metrics), "eventbus_processed_total")) == {
        ("billing", "dead", "unknown"),
        ("billing", "ack", "late.comer"),
    }


def test_no_label_holds_what_comes_with_an_event() -> None:
    metrics = Metrics()
    secret = envelope(organization="acme-corp", subject="lead-77", correlation_id="corr-1")
    metrics.count_finished(*finished(Release(), secret))
    metrics.count_published(outgoing(1), [Status.STORED])
    metrics.streams = [StreamState("order", 1, 0, 0, (GroupState("billing", 0, 0, 0, 0, None, None),))]
    text = str(scrape(metrics))
    for part in (secret.id, "acme-corp", "lead-77", "corr-1", FAILED.error):
        assert part not in text


def test_from_the_making_of_an_event_to_its_success_no_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    made = envelope()
    ms = int(made.id[:8] + made.id[9:13], 16)
    for later in (2.0, -5.0):  # the clock of who made it may be ahead
        monkeypatch.setattr("time.time", lambda later=later: ms / 1000 + later)
        metrics.count_finished(*finished(Ack(), made))
    metrics.count_finished(*finished(Dead(FAILED, 1), made))
    told = scrape(metrics)
    assert told["eventbus_end_to_end_seconds_count", "billing"] == 2
    assert told["eventbus_end_to_end_seconds_sum", "billing"] == pytest.approx(2.0, abs=0.001)


def test_a_value_on_a_bound_is_below_it() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.001, 0.0011, 0.0025, 60.0, 60.1):
        metrics.count_finished(*finished(Release(), envelope(), seconds))
    [executions] = metrics.executions.values()
    counts = executions.seconds.counts
    assert (counts[:2], counts[-2:], sum(counts)) == ([2, 2], [1, 1], 6)


def test_buckets_are_cumulative_and_end_with_all() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.3, 0.4, 99.0):
        metrics.count_finished(*finished(Release(), envelope(), seconds))
    # Labels by their names: group, le, type.
    told = {key[2]: value for key, value in scrape(metrics).items() if key[0] == "eventbus_handler_seconds_bucket"}
    assert (told["0.001"], told["0.25"], told["0.5"], told["60.0"], told["+Inf"]) == (1, 1, 3, 3, 4)


def test_a_lag_that_is_unknown_is_not_shown_as_0() -> None:
    metrics = Metrics()
    groups = (GroupState("a", None, 7, 3, 1, 2.5, None), GroupState("b", 0, 0, 0, 0, None, None))
    metrics.streams = [StreamState("order", 9, 4, 2, groups)]
    told = scrape(metrics)
    assert {key: value for key, value in told.items() if key[0] == "eventbus_lag"} == {
        ("eventbus_lag", "b", "order"): 0
    }
    assert told["eventbus_backlog", "a", "order"] == 7
    assert told["eventbus_pending", "a", "order"] == 3
    assert told["eventbus_delayed", "a", "order"] == 1
    assert told["eventbus_oldest_undelivered_seconds", "a", "order"] == 2.5
    assert told["eventbus_oldest_unacked_seconds", "a", "order"] == 0
    assert (told["eventbus_stream_length", "order"], told["eventbus_scheduled", "order"]) == (9, 4)
    assert told["eventbus_dead_letters", "order"] == 2


def test_a_spool_is_shown_if_there_is_one() -> None:
    class Full:
        records, size, rejected = 3, 512, 1

    metrics = Metrics()
    assert ("eventbus_spool_records",) not in scrape(metrics)
    metrics.spool = Full()
    told = scrape(metrics)
    assert [told[f"eventbus_spool_{name}",] for name in ("records", "bytes", "rejected")] == [3, 512, 1]


def test_counting_and_scraping_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape copies what the loop is adding to: here without what it does with the copy, which takes far longer."""
    metrics, ended = Metrics(), threading.Event()
    monkeypatch.setattr("eventbus.telemetry.metrics._label", str)  # as if all were known: dictionaries that grow
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    errors: list[Exception] = []

    def read() -> None:
        try:
            while not ended.is_set():
                prometheus._counted(metrics)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to raise to
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(600):
            metrics.count_finished(*finished(Ack(), envelope()._replace(type=f"order.n{number}")))
            metrics.count_published(outgoing(1, stream=f"s{number}"), [Status.STORED])
    finally:
        ended.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert errors == []
    assert sum(named(scrape(metrics), "eventbus_processed_total").values()) == 600


def test_what_the_garbage_collector_lets_in_while_a_scrape_copies_does_not_disturb_it() -> None:
    """It may run wherever something is made, and with it code of anybody's, while which other threads have a turn."""
    metrics, thresholds, let_in = Metrics(), gc.get_threshold(), iter(range(10**9))
    for number in range(1_000):
        metrics.count_published(outgoing(1, stream=f"s{number}"), [Status.STORED])

    def others(_phase: str, _info: dict[str, int]) -> None:
        metrics.count_published(outgoing(1, stream=f"t{next(let_in)}"), [Status.STORED])

    gc.callbacks.append(others)
    gc.set_threshold(100)
    try:
        prometheus._counted(metrics)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(others)
    assert next(let_in) > 5, "they had their turns"


def test_two_buses_do_not_share_a_registry() -> None:
    registry, metrics = CollectorRegistry(), Metrics()
    exposition = register(metrics, registry)
    assert metrics.exposed
    with pytest.raises(ConfigurationError, match="registry"):
        register(Metrics(), registry)
    registry.unregister(exposition)
    register(Metrics(), registry)


def test_names_and_labels_keep_the_rules() -> None:
    assert len({definition.name for definition in DEFINITIONS}) == len(DEFINITIONS)
    for name, kind, labels, text in DEFINITIONS:
        assert name.startswith("eventbus_")
        assert name.endswith("_total") == (kind == "counter")
        assert text.endswith(".")
        assert set(labels) <= {"stream", "group", "type", "status", "outcome", "server"}


def test_an_undecodable_event_is_counted_as_dead_and_unknown() -> None:
    metrics = Metrics()
    metrics.count_finished("billing", Dead(FAILED, 0), None, 0.0)
    assert named(scrape(metrics), "eventbus_processed_total") == {("billing", "dead", "unknown"): 1}
